import TestSupport
import Testing

/// An image as its users have it, and who made it.
struct ForeignImage: CustomTestStringConvertible, Sendable {
  enum Maker: Sendable { case qemu(options: String), ploop(version: Int, clusterSectors: Int) }

  let testDescription: String
  let maker: Maker

  static let all = [
    ForeignImage(testDescription: "qemu-img", maker: .qemu(options: "size=24M")),
    ForeignImage(
      testDescription: "qemu-img, a partial last cluster",
      maker: .qemu(options: "size=10000384,cluster_size=64K")),
    ForeignImage(
      testDescription: "ploop, version 1", maker: .ploop(version: 1, clusterSectors: 2048)),
    ForeignImage(
      testDescription: "ploop, version 2", maker: .ploop(version: 2, clusterSectors: 2048)),
    ForeignImage(
      testDescription: "ploop, version 2, clusters of 64 KiB",
      maker: .ploop(version: 2, clusterSectors: 128)),
  ]

  /// Makes it at a path and puts some noise into it by QEMU.
  func make(at path: String, noise: String) throws {
    switch maker {
    case .qemu(let options): try QEMU.create(path, options)
    case .ploop(let version, let clusterSectors):
      try OpenVZ.initialise(path, version: version, clusterSectors: clusterSectors, size: "24M")
    }
    try Tool.shell(
      """
      head -c 3000000 /dev/urandom > '\(noise)'
      qemu-io -f parallels -c 'write -s \(noise) 0 2999808' -c 'write -s \(noise) 5M 1M' \
        -c 'write -P 9 9M 64k' '\(path)'
      """)
  }
}

@Suite("Images of other tools, through the service")
struct ForeignImageTests {
  @Test(
    "are read over NBD as QEMU reads them, written over NBD, and accepted by their makers again",
    arguments: ForeignImage.all)
  func served(_ image: ForeignImage) throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    let path = "\(service.images)/disk/root.hds"
    try Tool.shell("mkdir '\(service.images)/disk'")
    try image.make(at: path, noise: "\(folder.path)/noise")
    try QEMU.convertToRaw(path, "\(folder.path)/expected")

    let reply = try service.attach("vm1", ["disk/root.hds"])
    #expect(reply.status == 201, "\(reply.text)")
    #expect((reply.json["repairs"] as? [String]) == [])
    try Tool.shell("nbdcopy '\(service.uri("vm1"))' '\(folder.path)/read'")
    try expectSameBytes("\(folder.path)/expected", "\(folder.path)/read", "as attached")

    // The same changes to the disk and, by dd, to the raw file.
    try Tool.shell(
      """
      cd '\(folder.path)'
      qemu-io -f raw -c 'write -s noise 7M 1M' -c 'write -s noise 100000 70000' \
        -c 'write -z 1M 2M' -c flush '\(service.uri("vm1"))'
      dd if=noise of=expected bs=1M count=1 oflag=seek_bytes seek=7M conv=notrunc status=none
      dd if=noise of=expected iflag=count_bytes count=70000 oflag=seek_bytes seek=100000 conv=notrunc status=none
      dd if=/dev/zero of=expected bs=1M count=2 seek=1 conv=notrunc status=none
      """)
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    try QEMU.convertToRaw(path, "\(folder.path)/after")
    try expectSameBytes("\(folder.path)/expected", "\(folder.path)/after", "after use")
    try QEMU.expectSound(path)
    // ploop knows no disk that ends within a cluster.
    if case .ploop = image.maker { try OpenVZ.expectSound(path) }
  }

  @Test("A chain over a raw base reads over NBD as QEMU's own stack of the files")
  func chain() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    let paths = ["base.raw", "middle.hds", "top.hds"].map { "\(service.images)/\($0)" }
    try Tool.shell(
      """
      cd '\(service.images)'
      head -c 12M /dev/urandom > base.raw && truncate -s 16M base.raw
      for f in middle top; do qemu-img create -q -f parallels -o cluster_size=64K $f.hds 16M; done
      qemu-io -f parallels -c 'write -P 1 1M 2M' -c 'write -P 2 13M 512k' middle.hds
      qemu-io -f parallels -c 'write -P 3 2M 2M' -c 'write -P 4 15M 64k' top.hds
      """)
    try Tool.shell(
      "qemu-img convert -O raw '\(QEMU.stack(paths, rawBase: true))' '\(folder.path)/expected'")
    let reply = try service.post(
      "/v1/devices",
      """
      {"id":"vm1","deltas":[{"path":"base.raw","format":"raw"},{"path":"middle.hds"},{"path":"top.hds"}],
       "export":{"name":"vm1"}}
      """)
    #expect(reply.status == 201, "\(reply.text)")
    try Tool.shell("nbdcopy '\(service.uri("vm1"))' '\(folder.path)/read'")
    try expectSameBytes("\(folder.path)/expected", "\(folder.path)/read")
  }
}
