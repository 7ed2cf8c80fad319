internal import Glibc
package import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

/// Drives a disk with a descriptor through changes of its chain, with every call recorded, and holds
/// what power loss can leave against what was promised.
///
/// It does what the service does around a change, and after a crash: settle the intent, read the
/// descriptor, attach the chain with safe repair.
package final class ChainRecording {
  /// When what can be done at the same time as something else is done: before it, after it, or one and
  /// the other by chance. The threads of the service do it anywhere in between.
  package enum Order: Sendable {
    case early, late
    case mixed(seed: UInt64)

    /// All that are looked at.
    package static let all: [Order] = [.early, .late, .mixed(seed: 1), .mixed(seed: 2)]

    fileprivate var helpers: Helpers {
      switch self {
      case .early: return .nobody { false }
      case .late: return .nobody { true }
      case .mixed(let seed):
        let random = Locked(SeededGenerator(seed: seed))
        return .nobody { random.withLock { Bool.random(using: &$0) } }
      }
    }
  }

  /// A snapshot, and from which position of the trace on it has to be there, and until when.
  struct Frozen {
    let guid: GUID
    let values: [UInt64]
    let clusters: UInt64
    var madeAt: Int
    var goneFrom = Int.max
    /// From where on nobody knows what it holds: another program has written its file, or a guest that came
    /// while it was made has failed.
    var spoiltFrom = Int.max
    /// Of a disk in use. Before anybody is told of it, it may be there, and holds what the disk does then.
    var isLive = false
  }

  static let notesName = "DiskDescriptor.xml.notes"

  private static let clusterShift = 12
  static let perCluster = 8

  static func geometry(clusters: UInt64) -> Geometry {
    Geometry(version: .v2, clusterShift: clusterShift, sizeBytes: clusters << UInt64(clusterShift))
  }

  let watch: Watch
  let folder: ImageFolder
  let plain: ImageFolder
  let engine = IOEngine(threadLimit: 1, rings: false)
  let helpers: Helpers
  var geometry: Geometry
  var initial: [String: [UInt8]] = [:]
  var device: Device?
  var history: History
  /// What was promised of the disk's size, in clusters; 0 stands for what it had at first.
  var sizes = History(sectorCount: 1)
  let firstClusters: UInt64
  /// What the disk holds, by sector.
  var current: [UInt64]
  var frozen: [Frozen] = []
  /// What the notes have been, and for which snapshot, oldest first; some may have failed.
  var notes: [(guid: GUID, bytes: [UInt8])] = []
  /// From where on other programs write files that are closed.
  var foreignFrom = Int.max
  /// Files that are another program's to remove.
  var foreign: Set<String> = []
  var kept: [Kept] = []
  /// Names of which there always is a checkpoint, whichever it is.
  var steadyNames: [(name: String, from: Int, until: Int)] = []
  var restores: [Restore] = []
  /// While a disk is being closed its checkpoints may be lost, but not be wrong.
  var closings: [Range<Int>] = []
  /// That a sector was given; each is given once.
  var lastValue: UInt64 = 0
  /// Whether what finds no room in a merge is tried once more, as the service does.
  var triesAgain = false
  /// Whether a disk that is closed has its checkpoints in the image as well.
  var keepsBitmapsInImage = false
  private(set) var isMerging = false

  /// - Parameters:
  ///   - path: an empty folder.
  ///   - order: of what snapshots do at the same time.
  ///   - clusters: of the disk, at first and at last.
  ///   - sharesBlocks: whether files of the host can.
  package init(
    path: String, _ order: Order, clusters: ClosedRange<UInt64> = 12...12,
    sharesBlocks: Bool = false
  ) throws {
    watch = Watch(sharesBlocks: sharesBlocks)
    helpers = order.helpers
    firstClusters = clusters.lowerBound
    geometry = Self.geometry(clusters: firstClusters)
    plain = try ImageFolder(path: path)
    folder = try ImageFolder(path: path, probe: watch)
    let sectors = Int(clusters.upperBound) * Self.perCluster
    history = History(sectorCount: sectors)
    current = Array(repeating: 0, count: sectors)
    try ImageCreator.create(in: plain, name: "root.hds", geometry: geometry)
    try DescriptorFile(in: plain).replace(with: Descriptor(new: geometry, file: "root.hds"))
    for name in try plain.names() { initial[name] = try plain.bytes(of: name, limit: 1 << 20) }
  }

  deinit { engine.stop(until: .after(seconds: 10)) }

  var position: Int { watch.trace.events.count }
  var file: DescriptorFile { DescriptorFile(in: folder) }
  var change: ChainChange { ChainChange(of: file, device: "disk", helpers: helpers) }

  // MARK: Steps

  package func attach() throws {
    let step = history.begin(.attach, at: position)
    device = try open(folder)
    history.end(step: step, at: position)
  }

  package func flush() throws {
    let step = history.begin(.flush, at: position)
    try device?.flush()
    history.end(step: step, at: position)
  }

  /// Gives a snapshot up.
  ///
  /// - Parameter between: run after each step of the copying.
  package func merge(
    _ number: Int, _ direction: MergeDirection = .forward, between: () throws -> Void = {}
  ) throws {
    guard let device else { return }
    let guid = frozen[number].guid
    // Backward its state is promised no longer from the beginning on.
    if direction == .backward { noLongerPromised(number) }
    isMerging = true
    let merge = try again {
      try change.beginMerge(
        device, of: guid, direction, chainTo: file.read().topGUID, until: .after(seconds: 10))
    }
    while try again({ try merge.step(limit: 2, on: engine) }) != nil {
      isMerging = false
      try between()
      isMerging = true
      try again { try merge.flush() }
    }
    if direction == .forward { noLongerPromised(number) }
    let made = try again { try change.finish(merge, of: guid, until: .after(seconds: 10)) }
    isMerging = false
    try change.end(made)
  }

  func again<Result>(_ body: () throws -> Result) throws -> Result {
    do { return try body() } catch let error as DeviceError {
      guard triesAgain, case .outOfSpace = error.kind else { throw error }
      return try body()
    }
  }

  /// Has the top and the delta below it change places, which gives the snapshot between them up.
  package func flip(_ number: Int) throws {
    guard let device else { return }
    noLongerPromised(number)
    let step = history.begin(.flush, at: position)
    let made = try change.flip(device, giving: frozen[number].guid, until: .after(seconds: 10))
    history.end(step: step, at: position)
    try change.end(made)
  }

  private func noLongerPromised(_ number: Int) {
    frozen[number].goneFrom = min(frozen[number].goneFrom, position)
  }

  /// Begins a merge, and gives it up.
  package func giveUp(_ number: Int, steps: Int) throws {
    guard let device else { return }
    noLongerPromised(number)
    let merge = try change.beginMerge(
      device, of: frozen[number].guid, .backward, chainTo: file.read().topGUID,
      until: .after(seconds: 10))
    for _ in 0..<steps { _ = try merge.step(limit: 2, on: engine) }
    try change.abandon(merge, until: .after(seconds: 10))
  }

  /// Makes the disk larger, with `between` run after each cluster that was moved for it.
  package func grow(toClusters clusters: UInt64, between: () throws -> Void = {}) throws {
    let step = sizes.begin(.change(durable: true), at: position)
    sizes.record(step: step, sector: 0, value: clusters)
    let deadline = Deadline.after(seconds: 300)
    guard let resize = try begin(toClusters: clusters, until: deadline) else { return }
    while try resize.step(limit: 1, until: deadline) != nil { try between() }
    try resize.prepare(until: deadline)
    _ = try change.finish(resize, until: deadline)
    geometry = Self.geometry(clusters: clusters)
    sizes.end(step: step, at: position)
  }

  /// Begins to make the disk larger, and gives that up.
  package func giveUpGrowing(toClusters clusters: UInt64, steps: Int) throws {
    let deadline = Deadline.after(seconds: 300)
    guard let resize = try begin(toClusters: clusters, until: deadline) else { return }
    for _ in 0..<steps { _ = try resize.step(limit: 1, until: deadline) }
    try resize.abandon(until: deadline)
  }

  private func begin(toClusters clusters: UInt64, until deadline: Deadline) throws -> Resize? {
    guard let device else { return nil }
    return try change.beginResize(
      device, to: Self.geometry(clusters: clusters).sizeBytes, until: deadline)
  }

  /// Goes back to a snapshot, with the disk closed meanwhile.
  ///
  /// - Returns: the number of the state that was kept.
  @discardableResult
  package func switchTop(to number: Int, keep: Bool) throws -> Int? {
    try detach()
    let name = keep ? GUID.random() : nil
    let (before, beforeClusters) = (current, geometry.clusterCount)
    let (after, clusters) = (frozen[number].values, frozen[number].clusters)
    let step = history.begin(.change(durable: true), at: position)
    for index in kept.indices { kept[index].spoiltFrom = min(kept[index].spoiltFrom, position) }
    for (sector, value) in after.enumerated() {
      history.record(step: step, sector: sector, value: value)
    }
    let size = sizes.begin(.change(durable: true), at: position)
    sizes.record(step: size, sector: 0, value: clusters)
    geometry = Self.geometry(clusters: clusters)
    let made = try change.switchTop(
      to: frozen[number].guid, geometry: geometry, keepingTopAs: name)
    history.end(step: step, at: position)
    sizes.end(step: size, at: position)
    if let name {
      frozen.append(
        Frozen(guid: name, values: before, clusters: beforeClusters, madeAt: position))
    }
    current = after
    try change.end(made)
    try attach()
    return name == nil ? nil : frozen.count - 1
  }

  /// Somebody moves the disk, and leaves behind what they take for nobody's.
  func loseCheckpointFile() throws {
    let descriptor = try file.read()
    guard let top = descriptor.shot(descriptor.topGUID) else { return }
    try folder.unlink("\(top.file).checkpoints")
    try folder.sync()
  }

  package func removeLeaf(_ number: Int) throws {
    frozen[number].goneFrom = position
    try change.end(try change.removeLeaf(frozen[number].guid))
  }

  package func detach() throws {
    let begun = position
    let step = history.begin(.detach, at: begun)
    closings.append(begun..<Int.max)
    try device?.detach(until: .after(seconds: 10))
    device = nil
    history.end(step: step, at: position)
    closings[closings.count - 1] = begun..<position
  }
}
