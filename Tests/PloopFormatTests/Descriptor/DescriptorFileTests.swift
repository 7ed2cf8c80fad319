import PloopFormat
import Testing

@Suite("The text of a descriptor")
struct DescriptorFileTests {
  @Test("is read, and written as it was", arguments: [DescriptorText.chain, DescriptorText.tree])
  func roundTrip(_ text: String) throws {
    #expect(String(decoding: try DescriptorText.read(text).file, as: UTF8.self) == text)
  }

  @Test("says sizes, files and names of a chain")
  func values() throws {
    let descriptor = try DescriptorText.read(DescriptorText.chain)
    #expect(descriptor.sizeSectors == 16384 && descriptor.clusterSectors == 128)
    #expect(descriptor.topGUID == .top && !descriptor.isBaseRaw)
    let chain = try descriptor.chain(to: .top)
    #expect(chain.map(\.file).first == "root.hds")
    #expect(
      chain.map(\.guid.description) == [1, 2].map(DescriptorText.guid) + [DescriptorText.top])
  }

  @Test("of a new disk is what `ploop init` writes")
  func new() {
    let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 8 << 20)
    let descriptor = Descriptor(new: geometry, file: "root.hds")
    let expected = DescriptorText.text([(DescriptorText.top, DescriptorText.none, "root.hds")])
    #expect(String(decoding: descriptor.file, as: UTF8.self) == expected)
  }

  @Test("of the smallest and the largest disk has a geometry that is not 0")
  func extremes() throws {
    for (shift, size) in [(12, 4096), (26, Geometry.sizeLimit(version: .v2, clusterShift: 26))] {
      let geometry = Geometry(version: .v2, clusterShift: shift, sizeBytes: UInt64(size))
      let descriptor = Descriptor(new: geometry, file: "root.hds")
      #expect(try Descriptor(parsing: descriptor.file) == descriptor)
      let text = String(decoding: descriptor.file, as: UTF8.self)
      #expect(!text.contains("<Cylinders>0<") && !text.contains("<Sectors>0<"))
    }
  }

  @Test("keeps cylinders and heads when the disk grows, as `ploop grow` does")
  func grown() throws {
    var descriptor = try DescriptorText.read(DescriptorText.chain)
    descriptor.resize(toSectors: 419_430_400)
    let text = String(decoding: descriptor.file, as: UTF8.self)
    for field in [
      "<Disk_size>419430400<", "<End>419430400<", "<Cylinders>32<", "<Heads>16<",
      "<Sectors>819200<",
    ] {
      #expect(text.contains(field))
    }
  }

  @Test("may name the top as it likes, or not at all where a shot has the usual name")
  func topName() throws {
    let without = DescriptorText.chain.changing(
      "    <TopGUID>\(DescriptorText.top)</TopGUID>\n", to: "")
    #expect(try DescriptorText.read(without).topGUID == .top)
    let other = DescriptorText.chain.replacing(DescriptorText.top, with: DescriptorText.guid(7))
    #expect(try DescriptorText.read(other).topGUID == GUID(DescriptorText.guid(7)))
    let nowhere = without.replacing(DescriptorText.top, with: DescriptorText.guid(7))
    #expect(DescriptorText.fault(Array(nowhere.utf8)) == "the top \(DescriptorText.top) is no shot")
  }

  @Test("says Plain of every image when the base is raw, and means the base")
  func rawBase() throws {
    let shots = [
      (DescriptorText.guid(1), DescriptorText.none, "a"),
      (DescriptorText.top, DescriptorText.guid(1), "b"),
    ]
    let text = DescriptorText.text(shots, type: "Plain")
    let descriptor = try DescriptorText.read(text)
    #expect(descriptor.isBaseRaw)
    #expect(try descriptor.chain(to: .top).map(descriptor.isRaw) == [true, false])
    #expect(String(decoding: descriptor.file, as: UTF8.self) == text)
    // Parallels' own files say of each image what it is.
    let own = text.replacing(
      "<Type>Plain</Type>\n        <File>b", with: "<Type>Compressed</Type>\n        <File>b")
    #expect(try DescriptorText.read(own) == descriptor)
  }

  @Test("keeps what only others understand, wherever it stands")
  func extras() throws {
    let text = DescriptorText.chain
      .changing(
        "<Parallels_disk_image>", to: "<Virtuozzo_disk_image Version=\"1.0\" a=\"&quot;&#10;\">"
      )
      .changing(
        "</Parallels_disk_image>",
        to: "  <Other>1 &lt; 2 &amp; 3 &gt; 2</Other>\n</Virtuozzo_disk_image>"
      )
      .changing(
        "<Padding>0</Padding>\n",
        to: """
          <Padding>0</Padding>
              <Encryption>
                <KeyId>key</KeyId>
              </Encryption>

          """
      )
      .changing(
        "  <Storage>\n",
        to: "  <Volume>\n      <Parent>../base</Parent>\n    </Volume>\n    <Storage>\n"
      )
      .changing(
        "<Blocksize>128</Blocksize>\n",
        to: "<Blocksize>128</Blocksize>\n      <Preallocated>1</Preallocated>\n"
      )
      .changing("<File>root.hds</File>\n", to: "<File>root.hds</File>\n        <Odd x=\"y\"/>\n")
      .changing(
        "<ParentGUID>\(DescriptorText.none)</ParentGUID>\n",
        to:
          "<ParentGUID>\(DescriptorText.none)</ParentGUID>\n      <Temporary/>\n      <DateTime>now</DateTime>\n"
      )
    let descriptor = try DescriptorText.read(text)
    #expect(descriptor.shots.map(\.mark) == [.temporary, nil, nil])
    #expect(String(decoding: descriptor.file, as: UTF8.self) == text)
  }

  @Test("is read with a mark at its beginning, other quotes, comments, entities and ends of lines")
  func otherForms() throws {
    let text =
      DescriptorText.chain
      .changing(
        "<?xml version=\"1.0\"?>", to: "\u{FEFF}<?xml version='1.0' encoding='utf-8' ?><!-- <a> -->"
      )
      .changing(
        "<File>root.hds</File>", to: "<File><!-- -- -->r&#111;&#x6F;t<!---->&apos;&amp;.hds</File >"
      )
      .replacing("\n", with: "\r\n") + "<!-- the end -->"
    #expect(try DescriptorText.read(text).shots.first?.file == "root'&.hds")
  }
}
