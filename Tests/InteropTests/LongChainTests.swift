import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("A long chain")
struct LongChainTests {
  private let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 1000 << 12)

  @Test("of 255 read-only deltas under one top reads right, and takes writes")
  func longest() throws {
    let bench = try Bench()
    let names = try makeDeltas(bench, count: 256)
    let device = try bench.attach(names)
    try expectEveryLevel(device, count: 256)
    #expect(device.levels().count == 256)
    // Copied from level 10, of which the rest of the cluster stays.
    try device.put([1, 2, 3], at: 10 << 12)
    #expect(try device.bytes(10 << 12, 5) == [1, 2, 3, 0xA1, 0xA1])
    try device.close()

    let again = try bench.attach(names, readonly: true)
    #expect(try again.bytes(10 << 12, 5) == [1, 2, 3, 0xA1, 0xA1])
    try again.close()
  }

  @Test("of 256 read-only deltas is refused")
  func tooLong() throws {
    let bench = try Bench()
    let names = try makeDeltas(bench, count: 257)
    let before = try bench.fingerprint()
    for readonly in [false, true] {
      let error = #expect(throws: DeviceError.self) {
        try bench.attach(names, readonly: readonly)
      }
      guard case .tooManyDeltas? = error?.kind else {
        Issue.record("refused as \(String(describing: error))")
        continue
      }
    }
    #expect(try bench.fingerprint() == before)
  }

  /// Delta i maps logical cluster i alone, and cluster 600, which the newest owns therefore. The
  /// bytes of cluster 600 tell the level.
  private func makeDeltas(_ bench: Bench, count: Int) throws -> [String] {
    try (0..<count).map { level in
      let name = "delta\(level)"
      try bench.makeImage(name, geometry, entries: [UInt64(level): 1, 600: 2])
      try bench.overwrite(name, at: 2 << 12, with: [UInt8(level & 0xFF), UInt8(level >> 8)])
      try bench.overwrite(name, at: 1 << 12, with: [UInt8(level & 0xFF), UInt8(level >> 8)])
      return name
    }
  }

  private func expectEveryLevel(_ device: Device, count: Int) throws {
    for level in 0..<count {
      #expect(
        try device.bytes(UInt64(level) << 12, 3) == [UInt8(level & 0xFF), UInt8(level >> 8), 0xA1])
    }
    let newest = count - 1
    #expect(try device.bytes(600 << 12, 3) == [UInt8(newest & 0xFF), UInt8(newest >> 8), 0xA2])
    #expect(try device.bytes(UInt64(count) << 12, 4096).allSatisfy { $0 == 0 })
    #expect(device.mappedClusters == UInt64(count) + 1)
  }
}
