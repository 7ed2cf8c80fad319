import Foundation
import TestSupport
import Testing

@Suite("Refusals")
struct RefusalTests {
  /// What is done to a good image, and what attaching it is answered with.
  struct Damage: CustomStringConvertible, Sendable {
    let name: String
    /// Shell commands on the file `$f`; `put OFFSET HEX` writes bytes.
    let commands: String
    let status: Int
    let code: String

    init(_ name: String, _ commands: String, _ status: Int, _ code: String) {
      self.name = name
      self.commands = commands
      self.status = status
      self.code = code
    }

    var description: String { name }
  }

  static let damages: [Damage] = [
    Damage("empty file", ": > $f", 422, "image-truncated"),
    Damage("no signature", "put 0 00", 422, "image-signature-unknown"),
    Damage("unknown type", "put 16 03000000", 422, "image-type-unsupported"),
    Damage("cluster of 3 sectors", "put 28 03000000", 422, "image-cluster-size-invalid"),
    Damage("cluster of 0 sectors", "put 28 00000000", 422, "image-cluster-size-invalid"),
    Damage("no disk", "put 36 0000000000000000", 422, "image-size-invalid"),
    Damage("index too short", "put 32 01000000", 422, "image-index-too-short"),
    Damage("file ends in the index", "truncate -s 64 $f", 422, "image-truncated"),
    Damage("in use", "put 44 596e6f74", 409, "image-unclean"),
    Damage("entry outside the file", "put 64 ff0f0000", 422, "image-corrupt"),
    Damage("reserved entry", "put 64 ffffffff", 422, "image-corrupt"),
    Damage("two entries for one cluster", "put 68 $(xxd -s 64 -l 4 -p $f)", 422, "image-corrupt"),
    Damage("entry behind the disk", "put 128 01000000", 409, "image-index-tail-set"),
  ]

  @Test(
    "A damaged image is refused by its own code, and not a byte of it changes", arguments: damages)
  func damaged(_ damage: Damage) throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    try Tool.shell(
      """
      set -e
      f='\(service.images)/disk.hds'
      put() { printf "$(printf %s "$2" | sed 's/../\\\\x&/g')" | dd of=$f bs=1 seek=$1 conv=notrunc status=none; }
      qemu-img create -q -f parallels $f 16M
      qemu-io -f parallels -c 'write -P 1 0 2M' $f > /dev/null
      \(damage.commands)
      """)
    let image = "\(service.images)/disk.hds"
    let before = try Tool.shell("sha256sum < '\(image)'; stat -c '%s %y' '\(image)'").output
    for more in ["", ",\"readonly\":true"] {
      let reply = try service.attach("vm1", ["disk.hds"], more)
      #expect(reply.status == damage.status, "\(reply.text)")
      #expect(reply.code == damage.code, "\(reply.text)")
      #expect((reply.json["remedy"] as? String)?.isEmpty == false)
    }
    #expect(
      try Tool.shell("sha256sum < '\(image)'; stat -c '%s %y' '\(image)'").output == before)
    #expect(try service.get("/v1/devices/vm1").status == 404)
    #expect(try service.get("/v1/exports/vm1").status == 404)
    if damage.code == "image-corrupt" {
      #expect(try service.attach("vm1", ["disk.hds"], ",\"repair\":\"safe\"").code == damage.code)
      #expect(
        try Tool.shell("sha256sum < '\(image)'; stat -c '%s %y' '\(image)'").output == before)
    }
    if damage.status == 409 {
      let reply = try service.attach("vm1", ["disk.hds"], ",\"repair\":\"safe\"")
      #expect(reply.status == 201, "\(reply.text)")
      #expect((reply.json["repairs"] as? [String])?.isEmpty == false)
      try Tool.shell("test -s '\(image).index-backup'")
      #expect(try service.delete("/v1/devices/vm1").status == 204)
      try Tool.shell("qemu-img check -f parallels '\(image)'")
    }
  }

  @Test("Paths that leave their root, or name no image, are refused")
  func paths() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    try Tool.shell(
      """
      cd '\(service.images)' && qemu-img create -q -f parallels ../outside.hds 16M &&
      qemu-img create -q -f parallels inside.hds 16M && ln -s ../outside.hds out && ln -s inside.hds in &&
      ln -s .. up && mkfifo fifo && mkdir folder && ln -s /etc/passwd passwd
      """)
    let rows: [(String, Int, String)] = [
      ("../outside.hds", 403, "path-outside-root"), ("out", 403, "path-outside-root"),
      ("in", 403, "path-outside-root"), ("up/outside.hds", 403, "path-outside-root"),
      ("passwd", 403, "path-outside-root"), ("/etc/passwd", 403, "path-outside-root"),
      ("main:/etc/passwd", 403, "path-outside-root"), ("fifo", 403, "image-unreadable"),
      ("folder", 403, "image-unreadable"), ("missing.hds", 404, "image-not-found"),
      ("folder/missing/x.hds", 404, "image-not-found"), ("inside.hds/x", 404, "image-not-found"),
      ("other:inside.hds", 422, "value-impossible"), ("", 422, "value-impossible"),
      ("main:", 422, "value-impossible"),
    ]
    for (path, status, code) in rows {
      let reply = try service.attach("vm1", [path])
      #expect(reply.status == status && reply.code == code, "\(path): \(reply.text)")
    }
    #expect(try service.attach("vm1", ["./folder/..//inside.hds"]).code == "path-outside-root")
    #expect(try service.attach("vm1", ["main:.//inside.hds"]).status == 201)
  }

  @Test("Names, sizes and numbers that cannot be are refused, and nothing is made")
  func values() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    func create(_ size: String, _ more: String = "") throws -> RunningService.Reply {
      try service.post(
        "/v1/devices", "{\"id\":\"vm1\",\"create\":{\"directory\":\"vm1\",\"size\":\(size)\(more)}}"
      )
    }
    let misaligned = try create("1048577")
    #expect(misaligned.status == 422 && misaligned.code == "size-misaligned")
    #expect(misaligned.json["nearest"] as? [Int] == [1_048_576, 2_097_152])
    #expect(try create("0").code == "invalid-value")
    #expect(try create("4503599627370496", ",\"cluster_size\":4096").code == "size-too-large")
    #expect(try create("1048576", ",\"cluster_size\":3000").code == "invalid-value")
    #expect(try create("1048576", ",\"version\":3").code == "invalid-value")
    #expect(try create("1048576", ",\"colour\":1").code == "unknown-field")
    #expect(try service.attach("VM 1", ["x"]).code == "invalid-value")
    #expect(try service.attach(String(repeating: "a", count: 64), ["x"]).code == "invalid-value")
    let many = (0..<257).map { "d\($0)" }
    #expect(try service.attach("vm1", many).code == "too-many-deltas")
    #expect(try Tool.shell("ls -A '\(service.images)'").output == "")
  }

  @Test("Who has an image is said: another device, QEMU, or a lower delta's children")
  func holders() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    try Tool.shell(
      """
      cd '\(service.images)' && truncate -s 16M base.raw && qemu-img create -q -f parallels a.hds 16M &&
      qemu-img create -q -f parallels b.hds 16M && ln a.hds link.hds && qemu-img create -q -f parallels c.hds 16M
      """)
    #expect(try service.attach("vm1", ["a.hds", "b.hds"]).status == 201)
    let top = try service.attach("vm2", ["b.hds"])
    #expect(top.status == 409 && top.code == "image-in-use", "\(top.text)")
    #expect((top.json["holder"] as? [String: Any])?["id"] as? String == "vm1")
    for path in ["a.hds", "link.hds"] {
      let lower = try service.attach("vm2", [path])
      #expect(lower.status == 409 && lower.code == "image-has-children", "\(lower.text)")
    }
    // Reading it is no harm, and two disks may share a base.
    #expect(try service.attach("ro", ["a.hds"], ",\"readonly\":true").status == 201)
    #expect(try service.attach("vm3", ["a.hds", "c.hds"]).status == 201)
    #expect(try service.attach("vm4", ["c.hds", "c.hds"]).status == 409)
    #expect(
      try service.post(
        "/v1/devices", "{\"id\":\"vm5\",\"deltas\":[{\"path\":\"base.raw\",\"format\":\"raw\"}]}"
      ).code == "raw-not-base")
    // QEMU keeps away from ours, and we from QEMU's.
    let qemu = try Tool.shell(
      "qemu-io -f parallels -c 'read 0 512' '\(service.images)/b.hds'", check: false)
    #expect(qemu.status != 0 && qemu.output.contains("lock"), "\(qemu.output)")
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    try Tool.shell(
      """
      cd '\(folder.path)'
      qemu-nbd -f parallels -k '\(folder.path)/q.sock' -t --fork --pid-file=q.pid '\(service.images)/b.hds'
      """)
    let held = try service.attach("vm1", ["a.hds", "b.hds"])
    try Tool.shell(
      "kill $(cat '\(folder.path)/q.pid'); tail --pid=$(cat '\(folder.path)/q.pid') -s 0.02 -f /dev/null"
    )
    #expect(held.status == 409 && held.code == "image-in-use", "\(held.text)")
    #expect(try service.attach("vm1", ["a.hds", "b.hds"], ",\"repair\":\"safe\"").status == 201)
  }

  @Test("A full disk is an error of its writer; nobody else, and nothing that was there, is hurt")
  func fullDisk() throws {
    let folder = try TemporaryFolder()
    try Tool.shell(
      "mkdir -p '\(folder.path)/images' && mount -t tmpfs -o size=24m none '\(folder.path)/images'")
    defer { _ = try? Tool.shell("umount -l '\(folder.path)/images'") }
    let service = try RunningService(in: folder.path)
    for id in ["a", "b"] {
      let reply = try service.create(id, sizeBytes: 67_108_864)
      #expect(reply.status == 201, "\(reply.text)")
    }
    try Tool.python(
      """
      import nbd, sys, errno
      a, b = nbd.NBD(), nbd.NBD()
      a.connect_uri(sys.argv[1]); b.connect_uri(sys.argv[2])
      b.pwrite(b"b" * (1 << 20), 0); b.flush()
      done = 0
      try:
          while done < 64:
              a.pwrite(bytes([done + 1]) * (1 << 20), done << 20); done += 1
          raise SystemExit("no error on a full disk")
      except nbd.Error as e:
          assert e.errno == "ENOSPC", e
      assert done > 10
      # What was there is there, in place writes go on, the neighbour reads and writes in place.
      for i in range(done): assert a.pread(1 << 20, i << 20) == bytes([i + 1]) * (1 << 20), i
      # A refused write may have left a part of its bytes, never anybody else's.
      refused = a.pread(1 << 20, done << 20)
      assert set(refused) <= {0, done + 1}, set(refused)
      a.pwrite(b"x" * 4096, 0); a.flush()
      b.pwrite(b"c" * 4096, 0); b.flush()
      # Given back, it can be used again without anybody's help.
      a.trim(4 << 20, 1 << 20); a.flush(); a.flush()
      a.pwrite(b"y" * (1 << 20), done << 20); a.flush()
      assert a.pread(1 << 20, done << 20) == b"y" * (1 << 20)
      a.shutdown(); b.shutdown()
      """, [service.uri("a"), service.uri("b")])
    let reply = try service.create("c", sizeBytes: 67_108_864, clusterBytes: 16_777_216)
    #expect(reply.status == 409 && reply.code == "insufficient-space", "\(reply.text)")
    for id in ["a", "b"] {
      #expect(try service.delete("/v1/devices/\(id)").status == 204)
      try Tool.shell("qemu-img check -f parallels '\(service.images)/\(id)/root.hds'")
    }
    #expect(try service.end() == 0)
  }
}
