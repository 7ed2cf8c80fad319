internal import Glibc
package import PloopDevice
internal import PloopFormat
package import PloopIO
internal import TestSupport

/// Drives a disk step by step, tracing every system call and keeping the history beside it.
///
/// Without faults a step that fails ends the scenario. With a fault planned (`Recording+Faults`),
/// steps may fail, the disk is looked after as an operator would, and the scenario goes on.
package final class Recording: Sendable {
  package static let top = "top"
  package static let base = "base"

  /// When the indexes of a disk that was closed are checked.
  package enum IndexChecking: Sendable {
    case before, behind
    /// Until the disk is closed again, which gives the check up.
    case never
  }

  struct State {
    var history: History
    var device: Device?
    /// What the device has open.
    var files: [ImageFile] = []
    var values: UInt64 = 0
    var isConcurrent = false
    /// Whether the fault came while it was.
    var hitWasConcurrent: Bool?
    var isInsideRound = false
    var failures: [(kind: History.Kind, error: any Error)] = []
    var problems: [String] = []
    /// Opening or closing failed.
    var mustReopen = false
    var hasRecovered = false
    /// The disk is full for now; there will be room before it is detached.
    var isFull = false
    /// The process is as good as dead.
    var isDying = false
    /// Positions of the attach after a kill.
    var restart: Range<Int>?
  }

  package let setup: Setup
  /// Every call in it is watched.
  package let folder: ImageFolder
  /// The same folder, unwatched.
  let plain: ImageFolder
  let watch: Watch
  package let initial: [UInt8]
  let state: Locked<State>
  let toleratesFaults: Bool

  /// - Parameter path: an empty folder.
  package init(path: String, _ setup: Setup, toleratesFaults: Bool = false) throws {
    self.setup = setup
    self.toleratesFaults = toleratesFaults
    watch = Watch(sharesBlocks: setup.sharesBlocks)
    plain = try ImageFolder(path: path)
    folder = try ImageFolder(path: path, probe: watch)
    try setup.makeImage(Recording.top, in: plain, spareTailBytes: setup.spareTailBytes)
    let file = try plain.open(Recording.top, writable: false)
    let content = AlignedBuffer(count: Int(try file.size()))
    _ = try file.read(into: content.region, at: 0)
    initial = content.region.bytes
    state = Locked(State(history: History(sectorCount: setup.sectorCount)))
    try makeBase()
    plan(nil)
  }

  private func makeBase() throws {
    guard setup.base != .none else { return }
    let step = state.withLock { $0.history.begin(.change(durable: true), at: -1) }
    switch setup.base {
    case .none: break
    case .delta:
      try setup.makeImage(Recording.base, in: plain)
      let device = try Device.attach(
        [
          DeltaSource(
            file: try plain.open(Recording.base, writable: true), folder: plain,
            name: Recording.base)
        ], .ofTests)
      for cluster in stride(from: 0, to: Int(setup.geometry.clusterCount), by: 2) {
        let sectors = setup.sectors(of: cluster..<cluster + 1)
        try device.write(
          fill(sectors, step: step), at: UInt64(sectors.lowerBound * History.sectorBytes),
          durable: false)
      }
      try device.detach(until: .after(seconds: 10))
    case .raw:
      try plain.create(Recording.base).write(
        fill(setup.sectors(of: 0..<8), step: step), at: 0)
    }
    state.withLock { $0.history.end(step: step, at: -1) }
  }

  package var trace: IOTrace { watch.trace }
  package var history: History { state.withLock { $0.history } }
  /// What the recording itself found to be wrong.
  package var problems: [String] { state.withLock { $0.problems } }
  var restart: Range<Int>? { state.withLock { $0.restart } }
  package var topPath: String { "\(folder.path)/\(Recording.top)" }
  var position: Int { trace.events.count }
  var device: Device? { state.withLock { $0.device } }

  func report(_ problem: String) { state.withLock { $0.problems.append(problem) } }

  /// Opens the chain in a folder that holds copies or the images themselves.
  package static func attach(
    _ setup: Setup, in folder: ImageFolder, repair: Bool
  ) throws -> Device {
    try attach(sources(setup, in: folder), repair: repair)
  }

  static func attach(
    _ sources: [DeltaSource], repair: Bool, _ check: IndexChecking = .before
  ) throws -> Device {
    var options = AttachOptions.ofTests
    options.repairSafely = repair
    if check != .before { options.promptIndexBytes = 0 }
    options.checks = CheckQueue(workerLimit: check == .never ? 0 : 1)
    let device = try Device.attach(sources, options)
    if check == .behind { try device.requireChecked(until: .after(seconds: 60)) }
    return device
  }

  static func sources(_ setup: Setup, in folder: ImageFolder) throws -> [DeltaSource] {
    let top = DeltaSource(file: try folder.open(top, writable: true), folder: folder, name: top)
    guard setup.base != .none else { return [top] }
    let file = try folder.open(base, writable: false)
    return [
      DeltaSource(file: file, folder: folder, name: base, isRaw: setup.base == .raw), top,
    ]
  }

  /// Bytes of a request for these sectors, each with a value of its own, put down in the history.
  func fill(_ sectors: Range<Int>, step: Int) -> ByteRegion {
    let region = AlignedBuffer(count: sectors.count * History.sectorBytes).region
    state.withLock { state in
      for (index, sector) in sectors.enumerated() {
        state.values += 1
        // Number and place, so that no two sectors ever share a value.
        let value = state.values << 20 | UInt64(sector) << 1 | 1
        History.fill(
          region.slice(index * History.sectorBytes, History.sectorBytes), with: value)
        state.history.record(step: step, sector: sector, value: value)
      }
    }
    return region
  }

  /// Reads the disk and reports every sector whose value is not among those that `expected` gives.
  func compare(
    _ device: Device, _ when: String, with expected: (History, Int) -> [UInt64]
  ) throws -> [UInt64] {
    let values = try watch.paused { try Recording.values(of: device) }
    let history = self.history
    for (sector, value) in values.enumerated() {
      let expected = expected(history, sector)
      if value.map(expected.contains) != true {
        report("\(when): sector \(sector) reads \(value ?? 0), expected one of \(expected)")
        break
      }
    }
    return values.map { $0 ?? .max }
  }

  /// What each sector reads as; nil where its bytes are not of one value.
  package static func values(of device: Device) throws -> [UInt64?] {
    let region = AlignedBuffer(count: Int(device.geometry.sizeBytes)).region
    var holes = HoleList()
    try device.read(into: region, at: 0, holes: &holes)
    return stride(from: 0, to: region.count, by: History.sectorBytes).map {
      History.value(of: region.slice($0, History.sectorBytes))
    }
  }
}
