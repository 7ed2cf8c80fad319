package import PloopIO

/// What a guest was promised about each sector: the model that every crash state is held against.
///
/// Steps are numbered in the order in which they were made. After a crash a sector may read as the
/// value of its last durable step, or of any later step that had begun; never as anything else. A
/// value is a number of its own for each step and sector, so bytes of another place are told apart.
package struct History: Sendable {
  package static let sectorBytes = 512

  private struct Step {
    let begunAt: Int
    var endedAt = Int.max
    /// Whether its effect is durable by itself once it has ended (FUA, an attach).
    let isDurable: Bool
  }

  private struct Change {
    let step: Int
    let value: UInt64
  }

  package let sectorCount: Int
  private var steps: [Step] = []
  private var changes: [[Change]]
  /// Flushes: step numbers.
  private var flushes: [Int] = []

  package init(sectorCount: Int) {
    self.sectorCount = sectorCount
    changes = Array(repeating: [], count: sectorCount)
  }

  /// - Parameter position: where in the trace the step begins.
  /// - Returns: the number of the step.
  package mutating func begin(at position: Int, durable: Bool) -> Int {
    steps.append(Step(begunAt: position, isDurable: durable))
    return steps.count - 1
  }

  package mutating func record(step: Int, sector: Int, value: UInt64) {
    changes[sector].append(Change(step: step, value: value))
  }

  package mutating func end(step: Int, at position: Int, isFlush: Bool = false) {
    steps[step].endedAt = position
    if isFlush { flushes.append(step) }
  }

  /// The values that a sector may have when the world ends at a position of the trace.
  package func allowed(sector: Int, at position: Int) -> [UInt64] {
    let flush = flushes.last { steps[$0].endedAt <= position } ?? -1
    var values: [UInt64] = [0]
    for change in changes[sector] {
      let step = steps[change.step]
      guard step.begunAt <= position else { break }
      let isDurable = step.endedAt <= position && (step.isDurable || change.step < flush)
      if isDurable { values.removeAll() }
      values.append(change.value)
    }
    return values
  }

  /// The value that the guest reads while nothing goes wrong.
  package func current(sector: Int) -> UInt64 { changes[sector].last?.value ?? 0 }

  /// The bytes of a sector with a value: the number, again and again.
  package static func fill(_ region: ByteRegion, with value: UInt64) {
    for offset in stride(from: 0, to: region.count, by: 8) {
      region.setLittleEndian(value, at: offset)
    }
  }

  /// The value of a sector's bytes, or nil when they are not all of one value.
  package static func value(of region: ByteRegion) -> UInt64? {
    let value = region.littleEndian(at: 0, as: UInt64.self)
    for offset in stride(from: 8, to: region.count, by: 8)
    where region.littleEndian(at: offset, as: UInt64.self) != value {
      return nil
    }
    return value
  }
}
