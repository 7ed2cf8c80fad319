import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("A check of a disk that is used")
struct LiveCheckTests {
  static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 6 << 20)

  private func check(_ device: Device) throws -> ChainCheck {
    let run = try CheckRun(of: device)
    while try run.step() != nil {}
    return try run.result()
  }

  @Test("finds nothing while guests write, trim and flush all over it")
  func load() throws {
    let seed = UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    let fixture = try DiskFixture()
    for name in ["base", "top"] { try fixture.make(name, Self.geometry) }
    let base = try fixture.attach(["base"])
    for cluster: UInt64 in 0..<500 { try base.put([1], at: cluster * 8192) }
    try base.close()
    let device = try fixture.attach(["base", "top"])
    let isOver = Locked(false)
    var guests: [Thread] = []
    for worker in 0..<3 {
      let guest = try Thread(name: "guest") {
        var random = SeededGenerator(seed: seed &+ UInt64(worker))
        var count = 0
        while !isOver.withLock({ $0 }) || count < 100 {
          count += 1
          let place = UInt64.random(in: 0..<1536, using: &random) << 12
          switch UInt64.random(in: 0..<10, using: &random) {
          case 0..<5: try? device.put([UInt8](repeating: UInt8(worker), count: 700), at: place)
          case 5..<9:
            try? device.discard(
              offset: place, length: min(8 << 12, (6 << 20) - place), durable: false)
          default: try? device.flush()
          }
        }
      }
      guests.append(guest)
    }
    for _ in 0..<60 {
      let found = try check(device)
      #expect(found.verdict == .clean, "\(found.levels.flatMap(\.faults))")
    }
    isOver.withLock { $0 = true }
    guests.forEach { $0.join() }
    guard case .image(let top) = try check(device).levels[1] else {
      Issue.record("the top has a header")
      return
    }
    #expect(top.isLive && !top.isUnclean && !top.header.isClean)
    try device.flush()
    try device.close()
    #expect(try ChainCheck(["base", "top"].map { try fixture.source($0) }).verdict == .clean)
  }

  /// All of the map is in memory: only there it can be another one than the file's.
  private func roomyFixture() throws -> DiskFixture {
    try DiskFixture(indexCache: FramePool(budgetBytes: AttachOptions.indexCacheBytes))
  }

  private func disk(_ fixture: DiskFixture) throws -> Device {
    try fixture.make("a", Self.geometry)
    let device = try fixture.attach(["a"])
    for cluster: UInt64 in 0..<10 { try device.put([1], at: cluster << 12) }
    try device.flush()
    #expect(try check(device).verdict == .clean)
    return device
  }

  private func faults(_ device: Device) throws -> [String] {
    try check(device).levels.flatMap(\.faults).map {
      "\($0.code) \($0.cluster.map(String.init) ?? "-")"
    }
  }

  @Test("finds an entry that somebody else has written into the file")
  func foreignEntry() throws {
    let fixture = try roomyFixture()
    let device = try disk(fixture)
    let file = try fixture.folder.open("a", writable: true)
    try file.write(AlignedBuffer([7, 0, 0, 0]).region, at: 64 + 4 * 3)
    #expect(try faults(device) == ["entry-differs 3"])
    try file.write(AlignedBuffer([0, 0, 0, 0]).region, at: 64 + 4 * 3)
    #expect(try faults(device) == ["entry-differs 3"])
  }

  @Test("finds two clusters that share a place, also where no step sees both")
  func shared() throws {
    let fixture = try roomyFixture()
    let device = try disk(fixture)
    try device.map.pinning(0) { () throws(DeviceError) in
      device.map.set(try device.map.place(of: 2), for: 5)
    }
    #expect(try faults(device).first == "duplicate-entry 5")
    let far = try roomyFixture()
    let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 300_000 << 12)
    try far.make("a", geometry)
    let large = try far.attach(["a"])
    try large.put([1], at: 0)
    try large.put([1], at: 299_000 << 12)
    let page = Geometry.position(of: 299_000).page
    try large.map.pin(page)
    large.map.set(try large.map.place(of: 0), for: 299_000)
    #expect(try faults(large).first == "duplicate-entry 299000")
  }

  @Test("finds that the file has been cut, or has another header")
  func cut() throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture)
    let file = try fixture.folder.open("a", writable: true)
    try file.truncate(to: Self.geometry.headerBytes + 8 << 12)
    #expect(try faults(device).contains { $0.hasPrefix("entry-outside-file") })
    try file.write(AlignedBuffer([9]).region, at: 16)
    #expect(try faults(device) == ["image-type-unsupported -"])
  }

  @Test("reads lower deltas by their own indexes")
  func lower() throws {
    let fixture = try DiskFixture()
    try disk(fixture).close()
    try fixture.make("top", Self.geometry)
    let device = try fixture.attach(["a", "top"])
    let file = try fixture.folder.open("a", writable: true)
    try file.write(AlignedBuffer([0xFF, 0xFF, 0xFF, 0xFF]).region, at: 64 + 4 * 3)
    let found = try check(device)
    #expect(found.levels.map(\.verdict) == [.corrupt, .clean])
    #expect(found.levels[0].faults.map(\.code) == ["entry-reserved"])
  }
}
