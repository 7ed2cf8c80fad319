import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

/// A disk with a descriptor whose chain is changed while it is used, and what every state of it has
/// to hold.
final class ChainBench {
  let fixture: DiskFixture
  let geometry: Geometry
  let engine = IOEngine(threadLimit: 8)
  private(set) var device: Device
  /// What the disk holds, and what each snapshot has to.
  var content: [UInt8]
  private(set) var frozen: [GUID: [UInt8]] = [:]
  private var random: SeededGenerator
  private let helpers: Helpers

  /// - Parameter helpers: who does what can be done at the same time; the engine's threads when nil.
  init(
    _ geometry: Geometry = Geometry(version: .v2, clusterShift: 14, sizeBytes: 1 << 20),
    beneath parent: String = "/tmp", seed: UInt64 = 1, probe: (any IOProbe)? = nil,
    helpers: Helpers? = nil,
    indexCache: FramePool = .ofTests
  ) throws {
    self.geometry = geometry
    self.helpers = helpers ?? .engine(engine)
    random = SeededGenerator(seed: seed)
    fixture = try DiskFixture(beneath: parent, probe: probe, indexCache: indexCache)
    try fixture.make("root.hds", geometry)
    content = [UInt8](repeating: 0, count: Int(geometry.sizeBytes))
    let file = DescriptorFile(in: fixture.folder)
    try file.replace(with: Descriptor(new: geometry, file: "root.hds"))
    device = try fixture.attach(["root.hds"])
  }

  /// A disk that has grown: a delta of each size, oldest first, and content in all of them.
  init(
    growing sizes: [UInt64], clusterShift: Int, steps: Int = 12, seed: UInt64,
    version: ImageVersion = .v2, probe: (any IOProbe)? = nil
  ) throws {
    helpers = .engine(engine)
    random = SeededGenerator(seed: seed)
    fixture = try DiskFixture(probe: probe)
    let geometries = sizes.map {
      Geometry(version: version, clusterShift: clusterShift, sizeBytes: $0)
    }
    geometry = try #require(geometries.last)
    content = []
    var names: [String] = []
    var states: [[UInt8]] = []
    try fixture.make("disk.0", geometries[0])
    device = try fixture.attach(["disk.0"])
    for (level, geometry) in geometries.enumerated() {
      names.append("disk.\(level)")
      if level > 0 {
        try device.close()
        try fixture.make(names[level], geometry)
        device = try fixture.attach(names)
      }
      content += [UInt8](repeating: 0, count: Int(geometry.sizeBytes) - content.count)
      try exercise(steps)
      states.append(content)
    }
    try device.close()
    let descriptor = try Descriptor(chain: names, of: geometry, isBaseRaw: false)
    try DescriptorFile(in: fixture.folder).replace(with: descriptor)
    for (shot, state) in zip(descriptor.shots.dropLast(), states) { frozen[shot.guid] = state }
    device = try fixture.attach(names)
  }

  deinit { engine.stop(until: .after(seconds: 20)) }

  var file: DescriptorFile { DescriptorFile(in: fixture.folder) }
  private var change: ChainChange { ChainChange(of: file, device: "disk", helpers: helpers) }

  // MARK: The chain

  @discardableResult
  func snapshot(
    onto source: ChainChange.TopSource = .made, until deadline: Deadline = .after(seconds: 20)
  ) throws -> GUID {
    let guid = GUID.random()
    let made = try change.snapshot(device, as: guid, onto: source, until: deadline)
    frozen[guid] = content
    try change.end(made)
    return guid
  }

  /// Gives the state at a level up, with `between` run after each step.
  @discardableResult
  func merge(
    level: Int, _ direction: MergeDirection = .forward, limit: Int = 8,
    between: (Int) throws -> Void = { _ in }
  ) throws -> (progress: DeltaMerge.Progress, total: UInt64) {
    let before = try file.read()
    let chain = try before.chain(to: before.topGUID)
    let merge = try DeltaMerge(of: device, level: level, direction)
    try merge.prepare(until: .after(seconds: 20))
    var progress = DeltaMerge.Progress()
    var steps = 0
    while let step = try merge.step(limit: limit, on: engine) {
      progress += step
      steps += 1
      try between(steps)
    }
    var changed = before
    let gone =
      switch direction {
      case .forward: try changed.mergeForward(chain[level].guid).file
      case .backward: try changed.mergeIntoParent(chain[level + 1].guid)
      }
    _ = try merge.finish(descriptor: file, becoming: changed, until: .after(seconds: 20))
    try fixture.folder.unlink(gone)
    frozen[chain[level].guid] = nil
    return (progress, merge.totalClusters)
  }

  /// The top and the delta below it change places.
  ///
  /// - Returns: the snapshot that is given up.
  @discardableResult
  func flip(until deadline: Deadline = .after(seconds: 20)) throws -> GUID {
    let descriptor = try file.read()
    let chain = try descriptor.chain(to: descriptor.topGUID)
    let guid = chain.count > 1 ? chain[chain.count - 2].guid : .none
    try change.end(try change.flip(device, giving: guid, until: deadline))
    frozen[guid] = nil
    return guid
  }

  /// A snapshot whose state is no longer promised.
  func forget(_ guid: GUID) { frozen[guid] = nil }

  /// Closes the disk and opens it again by its descriptor.
  func reattach(repair: Bool = false) throws {
    let names = try self.names()
    device = try fixture.attach(names, repair: repair)
  }

  func names(to guid: GUID? = nil) throws -> [String] {
    let descriptor = try file.read()
    return try descriptor.chain(to: guid ?? descriptor.topGUID).map(\.file)
  }

  /// The disk has become larger; what has come is zero.
  func expectGrown(to clusters: UInt64) throws {
    #expect(device.geometry.clusterCount == clusters)
    let bytes = Int(clusters * geometry.clusterBytes)
    content += repeatElement(0, count: bytes - content.count)
  }

  // MARK: Use

  func write(_ offset: Int, _ bytes: [UInt8]) throws {
    try device.put(bytes, at: UInt64(offset))
    content.replaceSubrange(offset..<offset + bytes.count, with: bytes)
  }

  func zero(clusters: Range<Int>) throws {
    let cluster = Int(geometry.clusterBytes)
    let range = clusters.lowerBound * cluster..<clusters.upperBound * cluster
    try device.writeZeroes(
      offset: UInt64(range.lowerBound), length: UInt64(range.count), keepAllocated: false,
      onlyIfFast: false, durable: false)
    content.replaceSubrange(range, with: repeatElement(0, count: range.count))
  }

  func exercise(_ steps: Int) throws {
    let cluster = Int(geometry.clusterBytes)
    for _ in 0..<steps {
      let start = Int.random(in: 0..<content.count, using: &random)
      let count = min(content.count - start, Int.random(in: 1...3 * cluster, using: &random))
      switch Int.random(in: 0..<6, using: &random) {
      case 0..<4:
        let value = UInt8.random(in: 1...255, using: &random)
        try write(start, (0..<count).map { value &+ UInt8(truncatingIfNeeded: $0 / 512) })
      case 4:
        let first = start / cluster
        try zero(clusters: first..<min(content.count / cluster, first + 2))
      default: try device.flush()
      }
    }
  }

  // MARK: Judging

  /// Content as expected, and the map as it would be built from the files (invariant D3).
  func check(_ note: Comment? = nil) throws {
    #expect(try device.bytes(0, content.count) == content, note)
    try device.flush()
    let levels = try expectRebuilt(device, note)
    // Only the top is marked as in use.
    #expect(levels.map(\.isUnclean) == levels.indices.map { $0 == levels.count - 1 }, note)
  }

  /// Closes the disk and reads every state that can be gone back to.
  func checkSnapshots() throws {
    try device.close()
    for (guid, bytes) in frozen {
      let old = try fixture.attach(try names(to: guid), readonly: true)
      #expect(old.geometry.sizeBytes >= UInt64(bytes.count))
      #expect(try old.bytes(0, bytes.count) == bytes, "snapshot \(guid)")
      try old.close()
    }
    let again = try fixture.attach(try names())
    #expect(try again.bytes(0, content.count) == content)
    try again.close()
  }
}
