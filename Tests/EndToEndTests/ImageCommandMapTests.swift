import TestSupport
import Testing

@Suite("ploopd image map")
struct ImageCommandMapTests {
  let fixture: ImageCommandFixture

  init() throws { fixture = try ImageCommandFixture() }

  /// What two maps must agree on; neighbours that only the file's own holes divide are one.
  struct Range: Equatable {
    var start: Int
    var length: Int
    /// Counted from the top; nil where nothing is mapped.
    var depth: Int?
    var offset: Int?
  }

  private func ranges(_ command: String) throws -> [Range] {
    var ranges: [Range] = []
    for entry in try fixture.json(command, as: [[String: Any]].self) {
      let isPresent = try #require(entry["present"] as? Bool)
      let range = Range(
        start: try #require(entry["start"] as? Int), length: try #require(entry["length"] as? Int),
        depth: isPresent ? entry["depth"] as? Int : nil,
        offset: isPresent ? entry["offset"] as? Int : nil)
      if let last = ranges.last, last.depth == range.depth, last.start + last.length == range.start,
        last.offset.map({ $0 + last.length }) == range.offset
      {
        ranges[ranges.count - 1].length += range.length
      } else {
        ranges.append(range)
      }
    }
    return ranges
  }

  @Test("The map of one image is the map that qemu-img prints", arguments: [1, 2])
  func one(version: Int) throws {
    if version == 1 { try fixture.makeVersion1("a.img") } else { try fixture.makeImage("a.img") }
    try fixture.shell(
      "for at in 3328 1024 1088 2048 512; do qemu-io -f parallels -c \"write ${at}k 64k\" a.img; done"
    )
    let own = try ranges("ploopd image map --json a.img")
    #expect(own == (try ranges("qemu-img map -f parallels --output=json a.img")))
    #expect(own.count > 8)
  }

  @Test("The map of a chain is the map of QEMU's stack, on a ploop base and on a raw one")
  func chain() throws {
    try fixture.shell(
      """
      truncate -s 2M base.raw
      for at in 0 640 1984; do qemu-io -f raw -c "write ${at}k 64k" base.raw; done
      for name in base mid top; do
        qemu-img create -q -f parallels -o cluster_size=64k $name.img 4M
      done
      for at in 0 64 640 2048; do qemu-io -f parallels -c "write ${at}k 64k" base.img; done
      for at in 2048 128 3072; do qemu-io -f parallels -c "write ${at}k 64k" mid.img; done
      for at in 640 0; do qemu-io -f parallels -c "write ${at}k 64k" top.img; done
      """)
    for (options, base) in [("base.img", "base.img"), ("--raw-base base.raw", "base.raw")] {
      let driver = base == "base.raw" ? "raw" : "parallels"
      func node(_ driver: String, _ name: String, _ backing: String = "") -> String {
        #"{"driver":"\#(driver)","file":{"driver":"file","filename":"\#(name)"}\#(backing)}"#
      }
      let mid = node("parallels", "mid.img", ",\"backing\":\(node(driver, base))")
      let stack = node("parallels", "top.img", ",\"backing\":\(mid)")
      let own = try ranges("ploopd image map --json \(options) mid.img top.img")
      #expect(own == (try ranges("qemu-img map --output=json 'json:\(stack)'")), "on \(base)")
      #expect(Set(own.map(\.depth)) == [0, 1, 2, nil], "every level has its part")
    }
  }

  @Test("Mapped space that the file does not have is zero, not data")
  func zero() throws {
    try fixture.makeImage("a.img")
    try fixture.shell("ploopd image fill a.img && fallocate -p -o 131072 -l 65536 a.img")
    let output = try fixture.shell("ploopd image map a.img").output
    #expect(
      output.split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") } == [
        "Start Length Content Offset File", "0x0 0x10000 data 0x10000 a.img",
        "0x10000 0x10000 zero 0x20000 a.img", "0x20000 0x10000 data 0x30000 a.img",
        "0x30000 0x60000 hole", "0x90000 0x10000 data 0x40000 a.img", "0xa0000 0x360000 hole",
      ])
    let map = try fixture.json("ploopd image map --json a.img", as: [[String: Any]].self)
    #expect(map.map { $0["zero"] as? Bool } == [false, true, false, true, false, true])
    #expect(map.map { $0["present"] as? Bool } == [true, true, true, false, true, false])
    #expect(map.first?["file"] as? String == "a.img")
  }

  @Test("An image that was not closed has a map, a corrupt one has none")
  func unclean() throws {
    try fixture.makeImage("a.img")
    let before = try fixture.shell("ploopd image map --json a.img").output
    try fixture.patch("a.img", at: 44, Array("Ynot".utf8))
    #expect(try fixture.shell("ploopd image map --json a.img").output == before)
    try fixture.patch("a.img", entry: 60, to: 2)
    let result = try fixture.shell("ploopd image map a.img", check: false)
    #expect(result.status == 1)
    #expect(result.output.contains("'ploopd image check' lists"), "\(result.output)")
  }
}
