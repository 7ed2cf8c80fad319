internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

/// Replays a recording: at each position, each state that power loss could leave is attached with
/// safe repair and every sector of it is held against the history.
package struct Enumeration {
  package struct Result: Sendable {
    package var states = 0
    package var bad: [String] = []

    package init(states: Int = 0, bad: [String] = []) {
      self.states = states
      self.bad = bad
    }

    package static func += (left: inout Result, right: Result) {
      left.states += right.states
      left.bad += right.bad
    }
  }

  private let setup: Setup
  private let history: History
  private let initial: [UInt8]
  private let events: [IOTrace.Event]
  private let topPath: String
  private let folder: ImageFolder

  /// - Parameter path: an empty folder for the states; a copy of the base is put there.
  package init(_ recording: Recording, path: String) throws {
    setup = recording.setup
    history = recording.history
    initial = recording.initial
    events = recording.trace.events
    topPath = recording.topPath
    folder = try ImageFolder(path: path)
    _ = try folder.create(Recording.top)
    if setup.base != .none {
      let source = try recording.folder.open(Recording.base, writable: false)
      let bytes = AlignedBuffer(count: Int(try source.size()))
      _ = try source.read(into: bytes.region, at: 0)
      try folder.create(Recording.base).write(bytes.region, at: 0)
    }
  }

  /// - Parameters:
  ///   - bounds: states at each position and block size; where there are no more than that, all of them.
  ///   - positions: only these are looked at, of a recording in which calls have failed.
  package func run(
    _ bounds: Bounds, _ looks: Looks = Looks(), positions: Range<Int>? = nil
  ) throws -> Result {
    var result = Result()
    var sizes = [4096, 512].map { blockBytes in
      (
        random: SeededGenerator(seed: bounds.seed &+ UInt64(blockBytes)),
        states: CrashStates(initial: initial, blockBytes: blockBytes)
      )
    }
    var syncs = SyncStarts()
    for (position, event) in events.enumerated() {
      guard event.path == topPath else { continue }
      if looks.isEnough { break }
      var here: Set<UInt64> = []
      var syncBegan: Int?
      if case .syncStarted = event {
        // Syncs that failed have no end.
        if positions != nil { syncs = SyncStarts() }
        syncs.begin(at: position)
      }
      if case .synced = event { syncBegan = syncs.end() }
      looks.advance(to: position, of: events.count)
      for index in sizes.indices {
        sizes[index].states.apply(event, at: position, syncBegan: syncBegan)
        guard positions?.contains(position) != false else { continue }
        let choices = sizes[index].states.choices
        choices.forEach(limit: bounds.samples, random: &sizes[index].random) { bytes in
          let digest = StateNames.digest(of: bytes)
          guard here.insert(digest).inserted, looks.isWorthwhile(digest) else { return }
          result.states += 1
          if let fault = check(bytes, at: position + 1, looks) {
            result.bad.append(
              "position \(position), blocks of \(index == 0 ? 4096 : 512), seed \(bounds.seed): \(fault)"
            )
          }
        }
      }
    }
    return result
  }

  /// - Returns: what is wrong with the state, or nil.
  private func check(_ bytes: [UInt8], at position: Int, _ looks: Looks) -> String? {
    do {
      try CrashStates.put(bytes, into: folder)
      let crashed = try inspect()
      guard crashed.faults.isEmpty else { return "entries are wrong: \(crashed.faults)" }
      let closing = closingDetach(at: position)
      if !crashed.isUnclean {
        switch history.opening(at: position) {
        case .attached: return "not marked as in use while attached"
        case .detaching where crashed.tailBytes > 0: return "closed with a spare tail"
        case .detaching, .closed: break
        }
      }
      // A closed image promises all that its detach does, whether that was answered or not.
      let done = crashed.isUnclean ? nil : closing
      let device = try Recording.attach(setup, in: folder, repair: true)
      if let fault = try compare(device, at: position, assuming: done) { return fault }
      try device.detach(until: .after(seconds: 10))
      guard try inspect().verdict == .clean else { return "needs repair after a clean detach" }
      if let fault = try looks.judge(Recording.top, in: folder) { return fault }
      let again = try Recording.attach(setup, in: folder, repair: false)
      defer { try? again.detach(until: .after(seconds: 10)) }
      return try compare(again, at: position, assuming: done).map { "after a clean detach: \($0)" }
    } catch {
      return "\(error)"
    }
  }

  private func inspect() throws -> ImageCheck {
    try ImageCheck(try folder.open(Recording.top, writable: false))
  }

  private func closingDetach(at position: Int) -> Int? {
    guard case .detaching(let step) = history.opening(at: position) else { return nil }
    return step
  }

  private func compare(
    _ device: Device, at position: Int, assuming done: Int?
  ) throws -> String? {
    for (sector, value) in try Recording.values(of: device).enumerated() {
      let allowed = history.allowed(sector: sector, at: position, assuming: done)
      guard let value else { return "sector \(sector) is torn" }
      guard allowed.contains(value) else {
        return "sector \(sector) reads \(value), allowed are \(allowed)"
      }
    }
    return nil
  }
}
