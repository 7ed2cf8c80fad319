import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("The top and the delta below it change places")
struct TopFlipTests {
  private static let cluster = 16 << 10

  private func expect(
    _ slug: String, _ body: () throws -> Void, _ location: SourceLocation = #_sourceLocation
  ) {
    let error = #expect(throws: DeviceError.self, sourceLocation: location, performing: body)
    var code: String?
    switch error?.kind {
    case .refused(let refusal, _)?: code = refusal.rawValue
    case .descriptor(let descriptor)?: code = descriptor.code.rawValue
    default: break
    }
    #expect(code == slug, "\(String(describing: error))", sourceLocation: location)
  }

  @Test("the disk and every other state stay (D6)", arguments: 2...5)
  func keeps(levels: Int) throws {
    let bench = try ChainBench(seed: UInt64(levels))
    for _ in 1..<levels {
      try bench.exercise(15)
      try bench.snapshot()
    }
    try bench.exercise(15)
    let before = try bench.names()
    let given = try bench.flip()
    let after = try bench.names()
    #expect(after == before.dropLast(2) + before.suffix(2).reversed())
    #expect(try bench.file.read().shot(given)?.mark == .temporary)
    try bench.check("flipped")
    try bench.exercise(15)
    try bench.check("used after it")
    // The merge in the opposite direction: the smaller file goes into the larger one.
    try bench.merge(level: levels - 2)
    #expect(try bench.names() == before.dropLast())
    try bench.exercise(5)
    try bench.check("merged")
    try bench.checkSnapshots()
  }

  @Test("twice is what it was before")
  func twice() throws {
    let bench = try ChainBench(seed: 3)
    try bench.exercise(20)
    try bench.snapshot()
    try bench.exercise(20)
    let before = try bench.names()
    try bench.flip()
    try bench.flip()
    #expect(try bench.names() == before)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test(
    "amid snapshots and merges in all directions", arguments: 1...6 as ClosedRange<UInt64>)
  func random(seed: UInt64) throws {
    let bench = try ChainBench(seed: seed)
    var random = SeededGenerator(seed: seed &+ 100)
    for round in 0..<16 {
      try bench.exercise(10)
      let levels = bench.device.levels().count
      switch Int.random(in: 0..<4, using: &random) {
      case 0 where levels > 1: try bench.flip()
      case 1 where levels > 2:
        try bench.merge(
          level: Int.random(in: 0..<levels - 2, using: &random),
          Bool.random(using: &random) ? .backward : .forward, limit: 5
        ) { _ in try bench.exercise(2) }
      case 2 where levels > 1: try bench.merge(level: levels - 2)
      default: try bench.snapshot()
      }
      try bench.check("round \(round), seed \(seed)")
    }
    try bench.checkSnapshots()
  }

  @Test("a delta of a smaller disk grows first", arguments: [ImageVersion.v1, .v2])
  func growing(version: ImageVersion) throws {
    let bench = try ChainBench(
      growing: [1 << 20, 5 << 20], clusterShift: 12, seed: 8, version: version)
    try bench.flip()
    try bench.check("flipped")
    try bench.exercise(12)
    try bench.check("used")
    try bench.merge(level: 0)
    try bench.check("merged")
    try bench.checkSnapshots()
  }

  @Test("what cannot be a top, or has what the disk does not, is refused, and nothing changes")
  func refused() throws {
    let bench = try ChainBench(seed: 4)
    try bench.exercise(10)
    expect("nothing-below-top") { try bench.flip() }
    try bench.snapshot()
    try bench.exercise(10)
    let descriptor = try bench.file.read()
    expect("snapshot-not-possible") {
      _ = try ChainChange(of: bench.file, device: "disk", helpers: .engine(bench.engine)).flip(
        bench.device, giving: descriptor.topGUID, until: .after(seconds: 20))
    }
    var branched = descriptor
    _ = try branched.switchTop(
      to: try #require(descriptor.shot(descriptor.topGUID)?.parent), newTopFile: "other",
      keepingTopAs: .random())
    try bench.file.replace(with: branched)
    expect("snapshot-has-branches") { try bench.flip() }
    try bench.file.replace(with: descriptor)
    try bench.check()
    try bench.checkSnapshots()

    let fixture = try DiskFixture()
    try fixture.folder.create("raw").truncate(to: bench.geometry.sizeBytes)
    try fixture.make("top", bench.geometry)
    let device = try fixture.attach(["raw", "top"], raw: ["raw"])
    expect("raw-not-allowed") { _ = try TopFlip(of: device) }
    try device.close()
  }

  @Test("clusters that another program has put into the older delta are refused")
  func overlap() throws {
    let bench = try ChainBench()
    try bench.write(0, [1])
    try bench.snapshot()
    try bench.write(5 * Self.cluster, [2])
    try bench.snapshot()
    try bench.write(9 * Self.cluster, [3])
    // The cluster that the disk reads from the oldest delta.
    let index = Geometry.headerSlots * 4
    let name = try #require(try bench.names().dropLast().last)
    let file = try bench.fixture.folder.open(name, writable: true)
    try file.truncate(to: 3 * UInt64(Self.cluster))
    try file.write(AlignedBuffer([2, 0, 0, 0]).region, at: index)
    expect("flip-overlap") { try bench.flip() }
    try file.write(AlignedBuffer([0, 0, 0, 0]).region, at: index)
    try bench.check()
    try bench.flip()
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("one that is not made leaves a snapshot that can be gone back to")
  func notMade() throws {
    let bench = try ChainBench(seed: 6)
    try bench.exercise(20)
    let guid = try bench.snapshot()
    try bench.exercise(20)
    let pass = try bench.device.admitted()
    #expect(throws: DeviceError.self) { try bench.flip(until: .after(milliseconds: 20)) }
    bench.device.gate.leave(pass)
    #expect(bench.device.chain.deltas[0].had.clusters != nil)
    #expect(try bench.file.read().shot(guid)?.mark == nil)
    #expect(
      try bench.fixture.folder.names().filter { $0.hasPrefix("DiskDescriptor.xml.") }
        == ["DiskDescriptor.xml.lck"].filter(bench.fixture.folder.contains))
    try bench.check()
    try bench.exercise(10)
    try bench.checkSnapshots()
  }

  @Test("a saved index is put back only where nobody else has written since")
  func saved() throws {
    let fixture = try DiskFixture()
    let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 4 << 20)
    try fixture.make("disk", geometry)
    let device = try fixture.attach(["disk"])
    for cluster in 0..<40 { try device.put([7], at: UInt64(cluster * 3) << 12) }
    try device.close()
    let before = try fixture.folder.bytes(of: "disk", limit: 1 << 20)
    let file = try fixture.folder.open("disk", writable: true)
    let saved = SavedIndex("saved", in: fixture.folder)
    try saved.save(file, bytes: geometry.headerBytes)
    let source = DeltaSource(file: file, folder: fixture.folder, name: "disk")

    let zero = AlignedBuffer([0, 0, 0, 0]).region
    for cluster in [0, 3, 117] as [UInt64] {
      try file.write(zero, at: (Geometry.headerSlots + cluster) * 4)
    }
    #expect(try saved.putBack(into: source))
    #expect(try fixture.folder.bytes(of: "disk", limit: 1 << 20) == before)
    #expect(try saved.putBack(into: source))

    try file.write(zero, at: (Geometry.headerSlots + 3) * 4)
    try file.write(AlignedBuffer([9, 0, 0, 0]).region, at: (Geometry.headerSlots + 6) * 4)
    let changed = try fixture.folder.bytes(of: "disk", limit: 1 << 20)
    #expect(try !saved.putBack(into: source))
    #expect(try fixture.folder.bytes(of: "disk", limit: 1 << 20) == changed)

    // A copy that is cut short says nothing of what is behind its end, nor does half an entry.
    try fixture.folder.replace("disk", with: before)
    let again = try fixture.folder.open("disk", writable: true)
    try again.write(zero, at: (Geometry.headerSlots + 117) * 4)
    let lacking = try fixture.folder.bytes(of: "disk", limit: 1 << 20)
    let copy = try fixture.folder.open("saved", writable: true)
    for bytes in [4096, 4094, 66, 2, 0] as [UInt64] {
      try copy.truncate(to: bytes)
      #expect(
        try !saved.putBack(
          into: DeltaSource(file: again, folder: fixture.folder, name: "disk")), "\(bytes)")
    }
    #expect(try fixture.folder.bytes(of: "disk", limit: 1 << 20) == lacking)
  }

  @Test("a saved index that names what no entry can name is not put back")
  func changed() throws {
    let fixture = try DiskFixture()
    let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 4 << 20)
    try fixture.make("disk", geometry)
    let device = try fixture.attach(["disk"])
    for cluster in 0..<40 { try device.put([7], at: UInt64(cluster * 3) << 12) }
    try device.close()
    let file = try fixture.folder.open("disk", writable: true)
    let saved = SavedIndex("saved", in: fixture.folder)
    try saved.save(file, bytes: geometry.headerBytes)
    let place = (Geometry.headerSlots + 3) * 4
    try file.write(AlignedBuffer([0, 0, 0, 0]).region, at: place)
    let lacking = try fixture.folder.bytes(of: "disk", limit: 1 << 20)
    let copy = try fixture.folder.open("saved", writable: true)
    let good = AlignedBuffer(count: 4).region
    try copy.readOrZero(into: good, at: place)
    // Behind the file, the one that is reserved, inside the header, and another cluster's.
    for entry in [[0, 0, 1, 0], [255, 255, 255, 255], [1, 0, 0, 0], [4, 0, 0, 0]] as [[UInt8]] {
      try copy.write(AlignedBuffer(entry).region, at: place)
      let source = DeltaSource(file: file, folder: fixture.folder, name: "disk")
      #expect(try !saved.putBack(into: source), "\(entry)")
      #expect(try fixture.folder.bytes(of: "disk", limit: 1 << 20) == lacking, "\(entry)")
    }
    try copy.write(good, at: place)
    #expect(
      try saved.putBack(into: DeltaSource(file: file, folder: fixture.folder, name: "disk")))
    #expect(try ImageCheck(file).verdict == .clean)
  }
}
