internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Replays a recording: at each position, each state that power loss could leave is attached with
/// safe repair and every sector of it is held against the history.
package struct Enumeration {
  package struct Result: Sendable {
    package var states = 0
    package var bad: [String] = []

    package init() {}

    package static func += (left: inout Result, right: Result) {
      left.states += right.states
      left.bad += right.bad
    }
  }

  private let recording: Recording
  private let events: [IOTrace.Event]
  private let folder: ImageFolder
  private let topPath: String

  /// - Parameter path: an empty folder for the states; a copy of the base is put there.
  package init(_ recording: Recording, path: String) throws {
    self.recording = recording
    events = recording.trace.events
    folder = try ImageFolder(path: path)
    topPath = "\(recording.folder.path)/\(Recording.top)"
    _ = try folder.create(Recording.top)
    if recording.hasBase {
      let source = try recording.folder.open(Recording.base, writable: false)
      let bytes = AlignedBuffer(count: Int(try source.size()))
      _ = try source.read(into: bytes.region, at: 0)
      try folder.create(Recording.base).write(bytes.region, at: 0)
    }
  }

  /// - Parameters:
  ///   - share: this worker takes every `of`-th position from `index` on.
  ///   - limit: states at each position and block size.
  package func run(
    seed: UInt64, limit: Int, share index: Int = 0, of workers: Int = 1
  ) throws -> Result {
    var result = Result()
    for blockBytes in [4096, 512] {
      var random = SplitMix(seed: seed &+ UInt64(blockBytes) &+ UInt64(index) << 32)
      var states = CrashStates(initial: recording.initial, blockBytes: blockBytes)
      var syncBegan: Int?
      for (position, event) in events.enumerated() {
        guard path(of: event) == topPath else { continue }
        if case .syncStarted = event { syncBegan = position }
        states.apply(event, at: position, syncBegan: syncBegan)
        guard position % workers == index else { continue }
        states.forEach(limit: limit, random: &random) { bytes in
          result.states += 1
          if let fault = check(bytes, at: position + 1) {
            result.bad.append(
              "position \(position), blocks of \(blockBytes), seed \(seed): \(fault)")
          }
        }
      }
    }
    return result
  }

  private func path(of event: IOTrace.Event) -> String? {
    switch event {
    case .write(let path, _, _), .truncate(let path, _), .allocate(let path, _, _),
      .zero(let path, _, _), .syncStarted(let path), .synced(let path):
      return path
    default: return nil
    }
  }

  /// - Returns: what is wrong with the state, or nil.
  private func check(_ bytes: [UInt8], at position: Int) -> String? {
    do {
      let file = try folder.open(Recording.top, writable: true)
      try file.truncate(to: 0)
      try file.write(AlignedBuffer(bytes).region, at: 0)
      try file.truncate(to: UInt64(bytes.count))
      let device = try attach(repair: true)
      if let fault = try compare(device, at: position) { return fault }
      try device.detach(until: .after(seconds: 10))
      let again = try attach(repair: false)
      defer { try? again.detach(until: .after(seconds: 10)) }
      return try compare(again, at: position).map { "after a clean detach: \($0)" }
    } catch {
      return "\(error)"
    }
  }

  private func attach(repair: Bool) throws -> Device {
    var options = AttachOptions()
    options.repairSafely = repair
    var sources: [DeltaSource] = []
    if recording.hasBase {
      sources.append(
        DeltaSource(
          file: try folder.open(Recording.base, writable: false), folder: folder,
          name: Recording.base))
    }
    sources.append(
      DeltaSource(
        file: try folder.open(Recording.top, writable: true), folder: folder, name: Recording.top))
    return try Device.attach(sources, options)
  }

  private func compare(_ device: Device, at position: Int) throws -> String? {
    let buffer = AlignedBuffer(count: Int(device.geometry.sizeBytes))
    var holes = HoleList()
    try device.read(into: buffer.region, at: 0, holes: &holes)
    for sector in 0..<recording.history.sectorCount {
      let bytes = buffer.region.slice(sector * History.sectorBytes, History.sectorBytes)
      let allowed = recording.history.allowed(sector: sector, at: position)
      guard let value = History.value(of: bytes) else { return "sector \(sector) is torn" }
      guard allowed.contains(value) else {
        return "sector \(sector) reads \(value), allowed are \(allowed)"
      }
    }
    return nil
  }
}

/// A small generator with a seed that can be printed (SplitMix64).
package struct SplitMix: RandomNumberGenerator, Sendable {
  private var state: UInt64

  package init(seed: UInt64) { state = seed }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
