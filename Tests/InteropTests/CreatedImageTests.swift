import PloopDevice
import PloopFormat
import TestSupport
import Testing

/// A disk for which we make an image.
struct CreatedImage: Sendable, CustomTestStringConvertible {
  let geometry: Geometry
  var testDescription: String {
    "v\(geometry.version.rawValue), \(geometry.clusterBytes >> 10) KiB × \(geometry.clusterCount)"
  }

  static let all: [CreatedImage] = [ImageVersion.v1, .v2].flatMap { version in
    let small = Geometry.clusterShifts.map { shift in
      Geometry(version: version, clusterShift: shift, sizeBytes: 5 << UInt64(shift))
    }
    // Indexes of three clusters, and the edge between one and two.
    let long = [(12, 2500), (15, 18000), (16, 33000), (12, 1008), (12, 1009)].map {
      Geometry(version: version, clusterShift: $0, sizeBytes: UInt64($1) << UInt64($0))
    }
    return (small + long).map { CreatedImage(geometry: $0) }
  }

  /// `ploop` knows clusters from 32 KiB on.
  var isKnownToPloop: Bool { geometry.clusterShift >= 15 }
}

@Suite("An image that we make")
struct CreatedImageTests {
  @Test(
    "is sound for QEMU and OpenVZ as it is, and again when it was used", arguments: CreatedImage.all
  )
  func sound(created: CreatedImage) throws {
    let bench = try Bench()
    let geometry = created.geometry
    try ImageCreator.create(in: bench.folder, name: "image", geometry: geometry)
    #expect(try bench.sizeBytes("image") == geometry.headerBytes)
    // QEMU takes the second cluster of an empty image's index for a leak.
    try QEMU.expectSound(bench.path("image"), status: geometry.headerClusters > 1 ? 3 : 0)
    if created.isKnownToPloop { try OpenVZ.expectSound(bench.path("image")) }

    let device = try bench.attach(["image"])
    #expect(device.geometry == geometry)
    #expect(try bench.header("image").inUse == Header.InUse.open)
    let last = geometry.sizeBytes - 512
    try device.put([UInt8](repeating: 0x5A, count: 512), at: last)
    try device.put([UInt8](repeating: 0xC3, count: 1024), at: geometry.clusterBytes - 512)
    try device.close()
    try QEMU.expectSound(bench.path("image"))
    if created.isKnownToPloop { try OpenVZ.expectSound(bench.path("image")) }
    let read = try Tool.shell(
      """
      qemu-io -r -f parallels -c 'read -P 0x5a \(last) 512' \
      -c 'read -P 0xc3 \(geometry.clusterBytes - 512) 1024' -c 'read -P 0 0 512' \
      '\(bench.path("image"))'
      """)
    #expect(!read.output.contains("failed"), "\(read.output)")
  }

  @Test("that was emptied again is as sound as a new one")
  func emptied() throws {
    let bench = try Bench()
    let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 1 << 20)
    try ImageCreator.create(in: bench.folder, name: "image", geometry: geometry)
    let before = try bench.fingerprint().suffix(70)
    let device = try bench.attach(["image"])
    try device.put([UInt8](repeating: 1, count: 1 << 20), at: 0)
    try device.discard(offset: 0, length: 1 << 20, durable: true)
    try device.close()
    #expect(try bench.fingerprint().suffix(70) == before)
    try QEMU.expectSound(bench.path("image"))
    try OpenVZ.expectSound(bench.path("image"))
  }
}
