internal import Glibc
package import PloopIO

/// What a guest was promised about each sector: the model that every state of a disk is held
/// against.
///
/// After a crash a sector may read as the value of its last durable step, or of any later step that
/// had begun, answered or not; never as anything else. A value is a number of its own for each step
/// and sector, so bytes of another place are told apart. Steps of different threads may overlap, as
/// long as no two of them touch one sector.
package struct History: Sendable {
  package static let sectorBytes = 512

  package enum Kind: Sendable {
    case attach, detach, flush
    /// Changes content; `durable` by itself once it has been answered (FUA).
    case change(durable: Bool)
  }

  private struct Step {
    let kind: Kind
    /// Positions in the trace, for telling what power loss there can take back.
    let begunAt: Int
    var endedAt = Int.max
    /// Moments in the order of calls and replies, for telling which flush covers which step.
    let begun: Int
    var ended = Int.max
    /// The position from which on power loss cannot take it back.
    var durableAt = Int.max
  }

  private struct Change {
    let step: Int
    let value: UInt64
  }

  package let sectorCount: Int
  private var steps: [Step] = []
  private var changes: [[Change]]
  private var clock = 0

  package init(sectorCount: Int) {
    self.sectorCount = sectorCount
    changes = Array(repeating: [], count: sectorCount)
  }

  private mutating func tick() -> Int {
    clock += 1
    return clock
  }

  // MARK: Writing it

  /// - Parameter position: where in the trace the step begins.
  /// - Returns: the number of the step.
  package mutating func begin(_ kind: Kind, at position: Int) -> Int {
    steps.append(Step(kind: kind, begunAt: position, begun: tick()))
    return steps.count - 1
  }

  package mutating func record(step: Int, sector: Int, value: UInt64) {
    changes[sector].append(Change(step: step, value: value))
  }

  /// The step was answered. One that failed is never ended: its values may be there, or not.
  package mutating func end(step: Int, at position: Int) {
    steps[step].endedAt = position
    steps[step].ended = tick()
    switch steps[step].kind {
    case .attach, .change(durable: true): steps[step].durableAt = position
    case .change(durable: false): break
    case .flush, .detach:
      let begun = steps[step].begun
      for number in steps.indices where steps[number].ended < begun {
        steps[number].durableAt = min(steps[number].durableAt, position)
      }
    }
  }

  // MARK: Asking it

  /// The values that a sector may have when the world ends at a position of the trace.
  ///
  /// - Parameter done: a detach that counts as completed, whatever the position.
  package func allowed(sector: Int, at position: Int, assuming done: Int? = nil) -> [UInt64] {
    let done = done.map { steps[$0].begun } ?? 0
    var values: [UInt64] = [0]
    for change in changes[sector] {
      let step = steps[change.step]
      guard step.begunAt <= position else { break }
      if step.durableAt <= position || step.ended < done { values.removeAll() }
      values.append(change.value)
    }
    return values
  }

  /// The values that a reader may get while no power is lost: the last answered one, and those of
  /// requests behind it that failed.
  package func readable(sector: Int) -> [UInt64] {
    var values: [UInt64] = []
    for change in changes[sector].reversed() {
      values.append(change.value)
      if steps[change.step].ended != .max { return values }
    }
    return values + [0]
  }

  /// Whether the disk is open or closed at a position of the trace.
  package enum Opening: Equatable, Sendable {
    /// No attach has been answered since the last detach.
    case closed
    case attached
    case detaching(step: Int)
  }

  package func opening(at position: Int) -> Opening {
    let last = steps.indices.last { number in
      guard steps[number].begunAt <= position else { return false }
      switch steps[number].kind {
      case .attach: return steps[number].endedAt <= position
      case .detach: return true
      default: return false
      }
    }
    guard let last else { return .closed }
    if case .detach = steps[last].kind { return .detaching(step: last) }
    return .attached
  }

  // MARK: Sectors

  /// The bytes of a sector with a value: the number, again and again.
  package static func fill(_ region: ByteRegion, with value: UInt64) {
    for offset in stride(from: 0, to: region.count, by: 8) {
      region.setLittleEndian(value, at: offset)
    }
  }

  /// The value of a sector's bytes, or nil when they are not all of one value.
  package static func value(of region: ByteRegion) -> UInt64? {
    guard memcmp(region.start, region.start + 8, region.count - 8) == 0 else { return nil }
    return region.littleEndian(at: 0, as: UInt64.self)
  }
}
