import Foundation
import TestSupport
import Testing

@Suite("Disks that are imported")
struct ImportTests {
  private let fixture: CopyFixture
  private var service: RunningService { fixture.service }
  /// What is imported, as a raw file that ends within a cluster and has holes.
  private let raw: String

  init() throws {
    fixture = try CopyFixture()
    raw = "\(fixture.service.images)/foreign.raw"
    try Tool.shell(
      """
      truncate -s 9437696 '\(raw)' && qemu-io -f raw -c 'write -P 7 0 1M' -c 'write -P 8 3M 512k' \
        -c 'write -P 9 9436672 1024' -c 'write -z 512k 64k' '\(raw)'
      """)
  }

  private func take(_ from: String, _ more: String = "") throws -> [String: Any] {
    try fixture.end(
      of: fixture.job(
        "{\"type\":\"import\",\"params\":{\"from\":{\(from)},\"to\":{\"id\":\"new\",\"directory\":\"new\",\"export\":\"new\"\(more)}}}"
      ))
  }

  /// The disk holds the raw file, and zeroes behind it up to a whole cluster.
  private func expectSame(_ size: Int) throws {
    let copy = try fixture.save("new", "copy")
    try Tool.shell(
      """
      cp --sparse=always '\(raw)' '\(fixture.folder.path)/padded'
      truncate -s \(size) '\(fixture.folder.path)/padded'
      """)
    try expectSameBytes(copy, "\(fixture.folder.path)/padded")
    #expect(try service.get("/v1/devices/new").json["size"] as? Int == size)
    #expect(try service.delete("/v1/devices/new").status == 204)
    try fixture.judge("new")
  }

  @Test("of a raw file, which has to be said to be one", arguments: [1, 2])
  func rawFile(version: Int) throws {
    let body =
      #"{"type":"import","params":{"from":{"image":"foreign.raw"},"to":{"id":"new","directory":"new"}}}"#
    let refused = try service.post("/v1/jobs", body)
    #expect(refused.code == "value-impossible", "\(refused.text)")
    let done = try take(
      #""image":"foreign.raw","format":"raw","cluster_size":65536"#, ",\"version\":\(version)")
    #expect(done["state"] as? String == "succeeded", "\(done)")
    // The zeroes that were written are nowhere, like the holes.
    let disk = try Tool.shell("du -k '\(service.images)/new/root.hds' | cut -f1").output
    #expect((Int(disk.dropLast()) ?? .max) < 2_400, "\(disk)")
    try expectSame((9_437_696 / 65_536 + 1) * 65_536)
  }

  @Test("of an image of either version", arguments: ["v1", "v2"])
  func image(version: String) throws {
    try Tool.shell("truncate -s 10485760 '\(raw)'")
    if version == "v2" {
      try QEMU.convert(raw: raw, "\(service.images)/foreign.hds", "cluster_size=65536")
    } else {
      let folder = "\(service.images)/v1"
      try Tool.shell("mkdir -p '\(folder)'")
      try OpenVZ.initialise(
        "\(folder)/root.hds", version: 1, clusterSectors: 128, size: "10M")
      let made = try service.post(
        "/v1/devices", #"{"id":"one","descriptor":"v1/DiskDescriptor.xml","export":{"name":"one"}}"#
      )
      #expect(made.status == 201, "\(made.text)")
      try Tool.shell("nbdcopy '\(raw)' '\(service.uri("one"))'")
      #expect(try service.delete("/v1/devices/one").status == 204)
    }
    let path = version == "v2" ? "foreign.hds" : "v1/DiskDescriptor.xml"
    let done = try take("\"image\":\"\(path)\"", ",\"version\":\(version == "v1" ? 2 : 1)")
    #expect(done["state"] as? String == "succeeded", "\(done)")
    try expectSame(10_485_760)
  }

  @Test("of an export of an NBD server, whatever is behind it")
  func nbd() throws {
    try Tool.shell(
      "qemu-img convert -f raw -O qcow2 '\(raw)' '\(fixture.folder.path)/foreign.qcow2'")
    let server = try ForeignServer.qemu(
      "\(fixture.folder.path)/foreign.qcow2", ["-r", "-f", "qcow2"],
      at: "\(service.images)/peer")
    let done = try take("\"nbd\":\"\(server.uri)\",\"cluster_size\":65536")
    #expect(done["state"] as? String == "succeeded", "\(done)")
    try expectSame((9_437_696 / 65_536 + 1) * 65_536)
  }

  @Test("of an image in QEMU's own format, unless it names other files")
  func qcow2() throws {
    let images = service.images
    try Tool.shell("qemu-img convert -f raw -O qcow2 '\(raw)' '\(images)/foreign.qcow2'")
    let features = try service.get("/v1").json["features"] as? [String]
    #expect(features?.contains("import.qcow2") == true, "\(features ?? [])")
    let done = try take(#""image":"foreign.qcow2","cluster_size":65536"#)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    try expectSame((9_437_696 / 65_536 + 1) * 65_536)
    // Neither of these is looked into.
    try Tool.shell(
      """
      echo secret > '\(fixture.folder.path)/secret'
      truncate -s 1M '\(fixture.folder.path)/secret'
      qemu-img create -q -f qcow2 -b '\(fixture.folder.path)/secret' -F raw '\(images)/over.qcow2'
      qemu-img create -q -f qcow2 -o data_file='\(fixture.folder.path)/secret',data_file_raw=on \
        '\(images)/beside.qcow2' 1M
      """)
    for name in ["over", "beside"] {
      let refused = try service.post(
        "/v1/jobs",
        "{\"type\":\"import\",\"params\":{\"from\":{\"image\":\"\(name).qcow2\"},\"to\":{\"id\":\"no\",\"directory\":\"no\"}}}"
      )
      #expect(refused.code == "image-invalid", "\(name): \(refused.text)")
    }
    #expect(
      try Tool.shell("pgrep -fc '[q]emu-nbd.*/proc/\(service.process)/fd' || true").output == "0\n")
  }

  @Test("wait for nobody who writes the file, and are no copy of one that is used")
  func inUse() throws {
    let refused = try service.post(
      "/v1/jobs",
      #"{"type":"import","params":{"from":{"image":"vm/DiskDescriptor.xml"},"to":{"id":"new","directory":"new"}}}"#
    )
    #expect(refused.code == "image-in-use", "\(refused.text)")
    let point = try service.post(
      "/v1/jobs",
      #"{"type":"import","params":{"from":{"target":"a","backup":"b"},"to":{"id":"new","directory":"new"}}}"#
    )
    #expect(point.code == "invalid-value", "\(point.text)")
    // A socket lies beneath a root, as everything that requests name.
    let socket = try service.post(
      "/v1/jobs",
      #"{"type":"import","params":{"from":{"nbd":"nbd+unix:///?socket=/etc/x"},"to":{"id":"new","directory":"new"}}}"#
    )
    #expect(socket.code == "path-outside-root", "\(socket.text)")
  }
}
