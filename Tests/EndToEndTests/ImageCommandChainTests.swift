import Foundation
import TestSupport
import Testing

@Suite("ploopd image with a descriptor")
struct ImageCommandChainTests {
  private let guid = "{11111111-2222-4333-8444-555555555555}"
  let fixture: ImageCommandFixture

  init() throws { fixture = try ImageCommandFixture() }

  private func files(_ command: String) throws -> [String] {
    let levels = try #require(try fixture.json(command)["levels"] as? [[String: Any]])
    return levels.compactMap { $0["file"] as? String }
  }

  @Test("means the chain that it names, as it is and as it was, from whatever folder")
  func chain() throws {
    try fixture.shell(
      """
      mkdir ct && cd ct && ploop init -s 64M -v 1 -b 2048 -t none root.hds >/dev/null
      qemu-io -f parallels -c 'write -P 1 0 2M' root.hds >/dev/null
      ploop snapshot -u '\(guid)' DiskDescriptor.xml >/dev/null
      """)
    let delta = try fixture.shell("ls ct/root.hds.*").output.trimmingCharacters(in: .newlines)
    for command in ["info", "check"] {
      let line = "ploopd image \(command) --json"
      #expect(try files("\(line) ct/DiskDescriptor.xml") == ["ct/root.hds", delta])
      #expect(try files("\(line) ct/DiskDescriptor.xml --at '\(guid)'") == ["ct/root.hds"])
    }
    let named = try fixture.json("ploopd image map --json ct/root.hds '\(delta)'", as: [Any].self)
    let described = try fixture.json(
      "ploopd image map --json ct/DiskDescriptor.xml", as: [Any].self)
    #expect(named as NSArray == described as NSArray && named.count == 2)
    try fixture.shell("ln -s ct/DiskDescriptor.xml link.xml")
    #expect(try fixture.status("ploopd image check link.xml") == 0)

    // Its images are mended as if they had been named.
    try fixture.patch(delta, at: 44, fixture.littleEndian(UInt32(0x746F_6E59)))
    #expect(try fixture.status("ploopd image check ct/DiskDescriptor.xml") == 3)
    #expect(try fixture.status("ploopd image check --repair ct/DiskDescriptor.xml") == 0)
    #expect(try fixture.status("ploopd image check ct/DiskDescriptor.xml") == 0)
  }

  @Test(
    "is refused with what is wrong",
    arguments: [
      ("check --at '{11111111-2222-4333-8444-555555555555}' a.img", 64, "DiskDescriptor.xml"),
      ("check a.xml b.img", 64, "nothing beside it"), ("check --at no a.xml", 64, "no GUID"),
      ("check a.xml", 1, "a.xml"), ("info missing.xml", 1, "missing.xml"),
    ])
  func refused(arguments: String, status: Int32, words: String) throws {
    let said = try fixture.shell(
      "echo '<a/>' > a.xml && ploopd image \(arguments) 2>&1", check: false)
    #expect(said.status == status && said.output.contains(words), "\(said.output)")
  }
}
