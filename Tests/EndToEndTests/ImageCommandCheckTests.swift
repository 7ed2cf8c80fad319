import Foundation
import TestSupport
import Testing

@Suite("ploopd image check")
struct ImageCommandCheckTests {
  let fixture: ImageCommandFixture

  init() throws { fixture = try ImageCommandFixture() }

  private func level(_ name: String, _ options: String = "") throws -> [String: Any] {
    let report = try fixture.json("ploopd image check --json \(options) \(name)")
    let levels = try #require(report["levels"] as? [[String: Any]])
    return try #require(levels.first)
  }

  @Test("Images of QEMU and of OpenVZ's ploop are clean, and counted as QEMU counts")
  func clean() throws {
    try fixture.makeImage("v2.img")
    try fixture.makeVersion1("v1.img")
    for name in ["v1.img", "v2.img"] {
      let foreign = try fixture.json("qemu-img check -f parallels --output=json \(name)")
      let report = try level(name)
      #expect(report["verdict"] as? String == "clean")
      #expect(report["mapped_clusters"] as? Int == foreign["allocated-clusters"] as? Int)
      #expect(report["mapped_clusters"] as? Int == 4)
      #expect(try fixture.status("ploopd image check \(name)") == 0)
    }
  }

  struct Fault: Sendable, CustomTestStringConvertible {
    let code: String
    let entry: UInt32
    var version = 2
    var cluster = "64k"
    var testDescription: String { code }
  }

  @Test(
    "Every entry that must not be followed is named with cluster, value and place; status 2",
    arguments: [
      Fault(code: "duplicate-entry", entry: 2), Fault(code: "entry-outside-file", entry: 5),
      Fault(code: "entry-reserved", entry: .max),
      Fault(code: "entry-inside-header", entry: 1, cluster: "4k"),
      Fault(code: "entry-unaligned", entry: 130, version: 1),
    ])
  func faults(fault: Fault) throws {
    if fault.version == 1 {
      try fixture.makeVersion1("a.img")
    } else {
      try fixture.makeImage("a.img", cluster: fault.cluster)
    }
    try fixture.patch("a.img", entry: 60, to: fault.entry)
    let before = try fixture.sum("a.img")
    let errors = try #require(try level("a.img", "--repair")["errors"] as? [[String: Any]])
    #expect(errors.count == 1)
    let error = try #require(errors.first)
    #expect(error["code"] as? String == fault.code)
    #expect(error["cluster"] as? Int == 60)
    #expect(error["entry"] as? Int == Int(fault.entry))
    #expect(error["offset"] as? Int == 64 + 4 * 60)
    #expect(try fixture.status("ploopd image check --repair a.img") == 2)
    #expect(try fixture.sum("a.img") == before, "nothing may be changed")
  }

  @Test("A header that does not describe its file is corrupt, with the header's own code")
  func header() throws {
    try fixture.makeImage("a.img")
    try fixture.patch("a.img", at: 48, fixture.littleEndian(UInt32(8)))
    let errors = try #require(try level("a.img")["errors"] as? [[String: Any]])
    #expect(errors.first?["code"] as? String == "image-first-block-invalid")
    #expect(try fixture.status("ploopd image check a.img") == 2)
    #expect(try fixture.status("ploopd image info a.img") == 1)
  }

  @Test("What safe repair mends is status 3; with --repair the image is clean, content and all")
  func repair() throws {
    try fixture.makeImage("a.img")
    let content = try fixture.content("a.img")
    try fixture.patch("a.img", at: 44, Array("Ynot".utf8))
    try fixture.patch("a.img", entry: 64, to: 77)
    try fixture.shell("truncate -s +100000 a.img")
    let before = try fixture.sum("a.img")
    let report = try level("a.img")
    #expect(report["verdict"] as? String == "repairable")
    #expect(report["in_use"] as? Bool == true)
    #expect(report["tail_bytes"] as? Int == 100000)
    let errors = try #require(report["errors"] as? [[String: Any]])
    #expect(
      errors.map { $0["code"] as? String } == ["entry-beyond-disk", "image-unclean", "tail"])
    #expect(errors.map { $0["offset"] as? Int } == [64 + 4 * 64, 44, 5 << 16])
    #expect(report["error_count"] as? Int == 3)
    #expect(try fixture.status("ploopd image check a.img") == 3)
    #expect(try fixture.sum("a.img") == before, "nothing may be changed without --repair")

    let repaired = try fixture.json("ploopd image check --repair --json a.img")
    #expect(repaired["verdict"] as? String == "clean")
    #expect((repaired["repairs"] as? [String])?.count == 4)
    try fixture.shell("ploopd image check a.img && qemu-img check -f parallels a.img")
    #expect(try fixture.content("a.img") == content)
  }

  @Test("A tail behind a closed image is cut, and said so")
  func tail() throws {
    try fixture.makeImage("a.img")
    try fixture.shell("truncate -s +64K a.img")
    #expect(try fixture.status("ploopd image check a.img") == 3)
    let output = try fixture.shell("ploopd image check --repair a.img").output
    #expect(output.contains("repaired: ./a.img: cut 65536 bytes"), "\(output)")
    try fixture.shell("qemu-img check -f parallels a.img")
  }

  @Test("An image that QEMU has open for writing cannot be looked at, filled or repaired")
  func locked() throws {
    try fixture.makeImage("a.img")
    let result = try fixture.shell(
      """
      qemu-nbd -f parallels -t -k "$PWD/socket" a.img & server=$!
      until [ -S socket ]; do kill -0 $server || exit 99; sleep 0.02; done
      for command in info check map fill "check --repair"; do
        ploopd image $command a.img; echo "status $?"
      done
      kill $server; wait $server
      ploopd image check a.img
      """)
    let lines = result.output.split(separator: "\n")
    #expect(lines.count { $0 == "status 1" } == 5, "\(result.output)")
    #expect(lines.count { $0.hasPrefix("ploopd: a.img is in use by another process; ") } == 5)
    #expect(lines.last?.hasPrefix("a.img: clean") == true)
  }

  @Test("Images that are no chain are named with their level; status 2")
  func mismatch() throws {
    try fixture.makeVersion1("base.img")
    try fixture.makeImage("top.img")
    let report = try fixture.json("ploopd image check --json base.img top.img")
    #expect(report["verdict"] as? String == "corrupt")
    let errors = try #require(report["errors"] as? [[String: Any]])
    #expect(errors.map { $0["code"] as? String } == ["geometry-mismatch"])
    #expect(errors.first?["level"] as? Int == 0)
    #expect(try fixture.status("ploopd image check base.img top.img") == 2)
  }

  @Test("Repair of a chain mends each of its images")
  func chainRepair() throws {
    try fixture.makeImage("base.img")
    try fixture.makeImage("top.img")
    for name in ["base.img", "top.img"] {
      try fixture.patch(name, at: 44, Array("Ynot".utf8))
    }
    #expect(try fixture.status("ploopd image check base.img top.img") == 3)
    try fixture.shell("ploopd image check --repair base.img top.img")
    try fixture.shell("qemu-img check -f parallels base.img && qemu-img check -f parallels top.img")
  }

  @Test("A dirty bitmap is shown, its clusters are in use; a damaged one is dropped by repair")
  func bitmaps() throws {
    try fixture.makeImage("a.img")
    let content = try fixture.content("a.img")
    try fixture.addBitmap(to: "a.img")
    // QEMU finds the bits that were set, so what was made here is what others make.
    let id = ImageCommandFixture.bitmapID
    let bits = try fixture.shell(
      """
      qemu-nbd -r -f parallels -t -B \(id) -k "$PWD/socket" a.img & server=$!
      until [ -S socket ]; do kill -0 $server || exit 99; sleep 0.02; done
      nbdinfo --map=qemu:dirty-bitmap:\(id) "nbd+unix:///?socket=$PWD/socket"
      kill $server; wait $server
      """
    ).output.split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") }
    #expect(bits == ["0 196608 1 dirty", "196608 3997696 0 clean"])
    let report = try level("a.img")
    #expect(report["verdict"] as? String == "clean")
    #expect(report["extension"] as? String == "good")
    #expect(report["tail_bytes"] as? Int == 0)
    let info = try fixture.shell("ploopd image info a.img").output
    #expect(info.contains(id), "\(info)")

    try fixture.patch("a.img", at: 5 * 65536 + 70, [0xFF])
    #expect(try level("a.img")["extension"] as? String == "damaged")
    #expect(try fixture.status("ploopd image check a.img") == 3)
    try fixture.shell("ploopd image check --repair a.img")
    #expect(try level("a.img")["extension"] as? String == "none")
    try fixture.shell("qemu-img check -f parallels a.img")
    #expect(try fixture.content("a.img") == content)
  }
}
