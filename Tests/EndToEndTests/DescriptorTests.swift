import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("Disks with a descriptor")
struct DescriptorTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
  }

  private static func guid(_ digit: Int) -> String {
    let digits = String(repeating: String(digit), count: 8)
    return "{\(digits)-0000-4000-8000-000000000000}"
  }

  private func attach(
    _ id: String, _ descriptor: String, _ more: String = ""
  ) throws -> RunningService.Reply {
    try service.post(
      "/v1/devices",
      "{\"id\":\"\(id)\",\"descriptor\":\"\(descriptor)\",\"export\":{\"name\":\"\(id)\"}\(more)}")
  }

  private func ploop(_ commands: String) throws {
    try OpenVZ.run("cd '\(service.images)/ct'\n\(commands)")
  }

  private func write(_ export: String, _ pattern: Int, _ place: String) throws {
    try Tool.shell("qemu-io -f raw -c 'write -P \(pattern) \(place)' '\(service.uri(export))'")
  }

  private func save(_ export: String, _ name: String) throws {
    try Tool.shell("nbdcopy '\(service.uri(export))' '\(folder.path)/\(name)'")
  }

  /// Attaches a state for reading and compares it with a copy that was made of it once.
  private func expect(_ state: String?, is copy: String, _ note: String) throws {
    let at = state.map { ",\"at\":\"\($0)\"" } ?? ",\"readonly\":true"
    let reply = try attach("look", "ct/DiskDescriptor.xml", at)
    #expect(reply.status == 201, "\(note): \(reply.text)")
    try save("look", "look")
    try expectSameBytes("\(folder.path)/look", "\(folder.path)/\(copy)", note)
    #expect(try service.delete("/v1/devices/look").status == 204)
  }

  @Test("are served byte for byte after all that `ploop` does to them", arguments: [1, 2])
  func foreign(_ version: Int) throws {
    let (one, two, three) = (Self.guid(1), Self.guid(2), Self.guid(3))
    try Tool.shell("mkdir -p '\(service.images)/ct'")
    try ploop("ploop init -s 8M -v \(version) -f expanded -b 128 -t none root.hds")
    /// Writes into the top through the service.
    func change(_ pattern: Int, _ place: String, savedAs name: String) throws {
      let reply = try attach("ct", "ct/DiskDescriptor.xml")
      #expect(reply.status == 201, "\(reply.text)")
      try write("ct", pattern, place)
      try save("ct", name)
      #expect(try service.delete("/v1/devices/ct").status == 204)
    }
    try change(1, "0 3M", savedAs: "state1")
    try ploop("ploop snapshot -u '\(one)' DiskDescriptor.xml")
    try change(2, "1000000 1000000", savedAs: "state2")
    try ploop("ploop snapshot -u '\(two)' DiskDescriptor.xml")
    try change(3, "2M 5M", savedAs: "state3")
    for (guid, name) in [(one, "state1"), (two, "state2"), (nil, "state3")] {
      try expect(guid, is: name, "after snapshots")
    }
    // QEMU, which knows nothing of descriptors, sees the same in the files.
    let files = try Tool.shell("ls -rt '\(service.images)/ct/'root.hds*").output
      .split(separator: "\n").map(String.init)
    #expect(files.count == 3)

    try ploop("ploop snapshot-switch -u '\(one)' DiskDescriptor.xml")
    try expect(nil, is: "state1", "after a switch")
    try expect(two, is: "state2", "after a switch")
    try change(4, "0 64k", savedAs: "state4")
    try ploop(
      """
      ploop snapshot -u '\(three)' DiskDescriptor.xml
      ploop snapshot-delete -u '\(one)' DiskDescriptor.xml
      """)
    #expect(
      try attach("no", "ct/DiskDescriptor.xml", ",\"at\":\"\(one)\"").code
        == "snapshot-not-possible")
    try expect(nil, is: "state4", "after a deletion that only marks")
    try expect(two, is: "state2", "after a deletion that only marks")
    try ploop("ploop snapshot-delete -u '\(two)' DiskDescriptor.xml")
    try expect(three, is: "state4", "after the deletion of a leaf")
    try ploop("ploop snapshot-merge -u '\(three)' DiskDescriptor.xml || true")
    try expect(nil, is: "state4", "after a merge")
    try ploop("ploop grow -s 16M DiskDescriptor.xml")
    try Tool.shell("truncate -s 16M '\(folder.path)/state4'")
    try expect(nil, is: "state4", "after a grow")
    try ploop("ploop snapshot-merge -A DiskDescriptor.xml")
    try expect(nil, is: "state4", "after the merge of all")
    #expect(
      try attach("no", "ct/DiskDescriptor.xml", ",\"at\":\"\(two)\"").code == "snapshot-not-found")
  }

  @Test("are made by create, and changed by us and by `ploop` in turns")
  func created() throws {
    #expect(try service.create("ct", sizeBytes: 8 << 20, clusterBytes: 65536).status == 201)
    let source = try #require(try service.get("/v1/devices/ct").json["source"] as? [String: Any])
    #expect(source["path"] as? String == "main:ct/DiskDescriptor.xml")
    try write("ct", 7, "0 2M")
    // While it is attached `ploop` waits for the lock.
    let check =
      "cd '\(service.images)/ct' && timeout -s KILL 1 ploop check DiskDescriptor.xml"
    #expect(try Tool.shell(check, check: false).status == 137)
    try save("ct", "copy")
    #expect(try service.delete("/v1/devices/ct").status == 204)
    try ploop(
      """
      ploop check DiskDescriptor.xml
      ploop snapshot-list DiskDescriptor.xml
      ploop snapshot -u '\(Self.guid(1))' DiskDescriptor.xml
      """)
    #expect(try attach("ct", "ct/DiskDescriptor.xml").status == 201)
    try write("ct", 8, "1M 3M")
    try expect(Self.guid(1), is: "copy", "beside the top, which is written")
    try save("ct", "copy")
    #expect(try service.delete("/v1/devices/ct").status == 204)
    try ploop("ploop snapshot-merge -A DiskDescriptor.xml\nploop check DiskDescriptor.xml")
    try expect(nil, is: "copy", "after the merge")
    #expect(try service.create("ct", sizeBytes: 8 << 20).code == "image-exists")
  }

  @Test("show their tree, and where a device is in it")
  func tree() throws {
    try Tool.shell("mkdir -p '\(service.images)/ct'")
    try ploop(
      """
      ploop init -s 8M -v 1 -f expanded -b 128 -t none root.hds
      for n in 1 2; do ploop snapshot -u {$n$n$n$n$n$n$n$n-0000-4000-8000-000000000000} DiskDescriptor.xml; done
      ploop snapshot-switch -u '\(Self.guid(1))' DiskDescriptor.xml
      """)
    let (one, two) = (Self.guid(1), Self.guid(2))
    let reply = try attach(
      "two", "main:ct/DiskDescriptor.xml", ",\"at\":\"\(two.dropFirst().dropLast())\"")
    #expect(reply.json["readonly"] as? Bool == true)
    let deltas = try #require(reply.json["deltas"] as? [[String: Any]])
    #expect(deltas.map { $0["uuid"] as? String } == [one, two])
    let list = try service.get("/v1/devices/two/snapshots").json
    let items = try #require(list["items"] as? [[String: Any]])
    #expect(items.map { $0["uuid"] as? String } == [one, two])
    #expect(items.map { $0["current"] as? Bool } == [true, false])
    #expect(items.map { $0["level"] as? Int } == [0, 1])
    #expect(items.map { $0["parent"] as? String } == [nil, one])
    #expect((items[0]["children"] as? [String])?.count == 2)
    // The top is another branch: both can be attached, and a second writer cannot.
    #expect(try attach("top", "ct/DiskDescriptor.xml").status == 201)
    let second = try attach("again", "ct/DiskDescriptor.xml")
    #expect(
      second.code == "image-in-use"
        && (second.json["holder"] as? [String: Any])?["id"] as? String == "top")
    let listed = try service.attach("list", ["ct/root.hds"])
    #expect(listed.code == "image-has-children")
    for id in ["two", "top"] { #expect(try service.delete("/v1/devices/\(id)").status == 204) }
    let alone = try service.attach("list", ["ct/root.hds"])
    #expect(alone.code == "image-has-children", "\(alone.text)")
    #expect((alone.json["holder"] as? [String: Any])?["kind"] as? String == "descriptor")
    #expect(try service.attach("list", ["ct/root.hds"], ",\"readonly\":true").status == 201)
    #expect(try service.get("/v1/devices/list/snapshots").text.contains("\"items\":[]"))
  }

  @Test("come back with the chain that their descriptor has by then")
  func comesBack() throws {
    #expect(try service.create("ct", sizeBytes: 8 << 20, clusterBytes: 65536).status == 201)
    try write("ct", 7, "0 2M")
    try save("ct", "copy")
    service.kill()
    try service.start()
    let device = try service.get("/v1/devices/ct").json
    #expect(device["state"] as? String == "online", "\(device)")
    try write("ct", 8, "1M 1M")
    try save("ct", "copy")
    #expect(try service.end() == 0)
    try ploop("ploop snapshot -u '\(Self.guid(1))' DiskDescriptor.xml")
    try service.start()
    let later = try service.get("/v1/devices/ct").json
    #expect((later["deltas"] as? [Any])?.count == 2)
    try save("ct", "again")
    try expectSameBytes("\(folder.path)/copy", "\(folder.path)/again")
  }

  @Test("reach no file outside of the roots, whatever the descriptor says")
  func confined() throws {
    try Tool.shell(
      """
      mkdir -p '\(service.images)/ct' '\(service.images)/base' && cd '\(folder.path)' &&
      qemu-img create -q -f parallels outside.hds 16M && cp outside.hds images/inside.hds &&
      cp outside.hds images/base/base.hds && ln -s ../../outside.hds images/ct/link.hds
      """)
    func reply(_ file: String, _ type: String = "Compressed") throws -> RunningService.Reply {
      try Tool.shell(
        "cat > '\(service.images)/ct/DiskDescriptor.xml' <<'END'\n\(Self.descriptor(file, type))\nEND\n"
      )
      defer { _ = try? service.delete("/v1/devices/x") }
      return try attach("x", "ct/DiskDescriptor.xml")
    }
    let files = [
      "../inside.hds", "../base/base.hds", "./..//base/../inside.hds",
      "\(service.images)/inside.hds",
      "\(folder.path)/images/ct/../inside.hds", "../../images/inside.hds",
    ]
    for file in files { #expect(try reply(file).status == 201, "\(file)") }
    let escapes = [
      "../../outside.hds", "/etc/passwd", "\(folder.path)/outside.hds", "link.hds", "../..", "/",
      "../../../../../../../../../../../../../../etc/passwd", "\(service.images)x/inside.hds",
    ]
    for file in escapes {
      for type in ["Compressed", "Plain"] {
        let answer = try reply(file, type)
        #expect(
          answer.status == 403 || answer.code == "descriptor-invalid", "\(file): \(answer.text)")
      }
    }
    #expect(try reply("nothing.hds").code == "image-not-found")
  }

  @Test("that are no disks are refused, and nothing is changed")
  func hostile() throws {
    try Tool.shell(
      "mkdir '\(service.images)/ct' && qemu-img create -q -f parallels '\(service.images)/ct/a' 16M"
    )
    let good = Self.descriptor("a")
    let cases = [
      good.replacing("?>", with: "?><!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]>"), "",
      "<a>",
      good.replacing("<Blocksize>2048", with: "<Blocksize>63"),
      good.replacing("<Type>Compressed", with: "<Type>Other"), String(good.dropLast(30)),
      String(repeating: "<a>", count: 10_000),
    ]
    for text in cases {
      try Tool.shell("cat > '\(service.images)/ct/DiskDescriptor.xml' <<'END'\n\(text)\nEND\n")
      let reply = try attach("x", "ct/DiskDescriptor.xml")
      #expect(reply.status == 422 && reply.code == "descriptor-invalid", "\(reply.text)")
    }
    try Tool.shell("head -c 2000000 /dev/zero > '\(service.images)/ct/DiskDescriptor.xml'")
    #expect(try attach("x", "ct/DiskDescriptor.xml").code == "descriptor-invalid")
    try Tool.shell(
      "cat > '\(service.images)/ct/DiskDescriptor.xml' <<'END'\n\(good.replacing(">2048<", with: ">128<"))\nEND\n"
    )
    #expect(try attach("x", "ct/DiskDescriptor.xml").code == "geometry-mismatch")
    try QEMU.expectSound("\(service.images)/ct/a")
    try Tool.shell(
      "rm '\(service.images)/ct/DiskDescriptor.xml' && mkfifo '\(service.images)/ct/DiskDescriptor.xml'"
    )
    #expect(try attach("x", "ct/DiskDescriptor.xml").status == 403)
    #expect(try attach("x", "ct/missing.xml").code == "image-not-found")
    #expect(try attach("x", "../ct").code == "path-outside-root")
    #expect(try service.get("/v1/devices").text.contains("\"items\":[]"))
  }

  private static func descriptor(_ file: String, _ type: String = "Compressed") -> String {
    let top = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
    return """
      <?xml version="1.0"?>
      <Parallels_disk_image>
        <Disk_Parameters><Disk_size>32768</Disk_size></Disk_Parameters>
        <StorageData><Storage><Blocksize>2048</Blocksize>
          <Image><GUID>\(top)</GUID><Type>\(type)</Type><File>\(file)</File></Image>
        </Storage></StorageData>
        <Snapshots><Shot><GUID>\(top)</GUID>
          <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot></Snapshots>
      </Parallels_disk_image>
      """
  }
}
