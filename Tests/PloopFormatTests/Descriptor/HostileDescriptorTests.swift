import PloopFormat
import TestSupport
import Testing

@Suite("A descriptor that somebody else wrote")
struct HostileDescriptorTests {
  private static let declaration = "<?xml version=\"1.0\"?>"

  @Test(
    "defines no entities and names no other files, whatever it tries",
    arguments: [
      ("\(declaration)<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "document types"),
      ("\(declaration)<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>", "document types"),
      (
        "\(declaration)<a><!DOCTYPE a [<!ENTITY b \"&c;&c;\"><!ENTITY c \"d\">]>&b;</a>",
        "document types"
      ),
      ("\(declaration)<a>&lol9;</a>", "the entity &lol9; is not defined, and none can be"),
      ("\(declaration)<a><![CDATA[b]]></a>", "CDATA"),
      ("\(declaration)<a><?php b ?></a>", "processing instructions"),
      ("\(declaration)<?xml-stylesheet href=\"b\"?><a/>", "processing instructions"),
      ("<a>&unterminated</a>", "an & begins no entity"), ("<a>&", "an & begins no entity"),
      ("<a>&#0;</a>", "is no character"), ("<a>&#xD800;</a>", "is no character"),
      ("<a>&#x110000;</a>", "is no character"), ("<a>&#99999999999;</a>", "an & begins no entity"),
      ("<a>&#+65;</a>", "is no character"), ("<a>&#;</a>", "is no character"),
    ])
  func entities(_ text: String, _ expected: String) throws {
    let fault = try #require(DescriptorText.fault(Array(text.utf8)))
    #expect(fault.contains(expected) && fault.hasPrefix("line 1: "), "\(fault)")
  }

  @Test("is refused when it is no XML, with the line where it ends being one")
  func noXML() {
    let cases: [(String, String)] = [
      ("", "line 1: no element begins here"), ("\n\nx", "line 3: no element begins here"),
      ("<a>\n</b>", "line 2: <a> of line 1 is not closed here"),
      ("<a>\n<b>\n</a>", "line 3: <b> of line 2 is not closed here"),
      ("<a/>\n<b/>", "line 2: something follows the root element"),
      ("<1/>", "line 1: a name is expected here"),
      ("<a b/>", "line 1: the attribute b has no value"),
      ("<a b=c/>", "line 1: the value of the attribute b is not in quotes"),
      ("<a b=\"c<\"/>", "line 1: the value of the attribute b does not end"),
      ("<a b=\"\" b=\"\"/>", "line 1: the attribute b is there twice"),
      ("<a b=\"\"c=\"\"/>", "line 1: white space is missing before an attribute"),
      ("<a>b<c/></a>", "line 1: <a> has text between its elements"),
      ("<a>\u{1}</a>", "line 1: the character 1 is allowed in no XML"),
      ("<a>\u{0}</a>", "line 1: the character 0 is allowed in no XML"),
      ("<a><!-- ", "line 1: a comment does not end"), ("<a", "line 1: the tag <a> does not end"),
      ("<?xml version=\"1.0\"", "line 1: the declaration does not end"),
      (
        "<?xml version=\"1.0\" encoding=\"UTF-16\"?><a/>",
        "line 1: the encoding is UTF-16; only UTF-8 is read"
      ),
      ("<?xml encoding=\"latin1\"?><a/>", "line 1: the encoding is latin1; only UTF-8 is read"),
    ]
    for (text, expected) in cases {
      #expect(DescriptorText.fault(Array(text.utf8)) == expected, "\(text)")
    }
    let chain = DescriptorText.chain
    #expect(DescriptorText.fault([0xFF] + Array(chain.utf8)) == "it is not in UTF-8")
    let wide: [UInt8] = chain.utf8.flatMap { [$0, 0] }
    #expect(DescriptorText.fault(wide) == "line 1: a name is expected here")
    #expect(DescriptorText.fault([0xFF, 0xFE] + wide) == "it is not in UTF-8")
  }

  @Test("costs no more than its size: depth, elements, attributes and bytes have limits")
  func limits() throws {
    func nested(_ depth: Int) -> [UInt8] {
      Array((String(repeating: "<a>", count: depth) + String(repeating: "</a>", count: depth)).utf8)
    }
    #expect(DescriptorText.fault(nested(16))?.contains("has no <Disk_Parameters>") == true)
    for depth in [17, 100_000] {
      #expect(
        DescriptorText.fault(nested(depth)) == "line 1: elements are nested more than 16 deep")
    }
    let many = "<a>" + String(repeating: "<b/>", count: 16_384) + "</a>"
    #expect(DescriptorText.fault(Array(many.utf8)) == "line 1: there are more than 16384 elements")
    let attributes = "<a" + (0..<17).map { " b\($0)=\"\"" }.joined() + "/>"
    #expect(
      DescriptorText.fault(Array(attributes.utf8))
        == "line 1: an element has more than 16 attributes")
    let name = "<" + String(repeating: "a", count: 256) + "/>"
    #expect(DescriptorText.fault(Array(name.utf8)) == "line 1: a name has more than 255 characters")
    let chain = Array(DescriptorText.chain.utf8)
    let room = XMLReader.Limits.bytes - chain.count
    #expect(DescriptorText.fault(chain + [UInt8](repeating: 0x20, count: room)) == nil)
    #expect(
      DescriptorText.fault(chain + [UInt8](repeating: 0x20, count: room + 1))
        == "it has 1048577 bytes; 1048576 are the most")
  }

  @Test("is refused wherever it ends too early")
  func truncated() {
    let bytes = Array(DescriptorText.chain.utf8)
    for count in 0..<bytes.count - 1 {
      #expect(DescriptorText.fault(Array(bytes[..<count])) != nil, "after \(count) bytes")
    }
  }

  @Test("is refused when what it says makes no disk")
  func noDisk() {
    let (one, two, top) = (DescriptorText.guid(1), DescriptorText.guid(2), DescriptorText.top)
    let chain = DescriptorText.chain
    let cases: [(String, String)] = [
      (chain.changing("<Disk_size>16384", to: "<Disk_size>0"), "line 3: a disk of 0 sectors"),
      (
        chain.changing("<Disk_size>16384", to: "<Disk_size>-1"),
        "line 3: <Disk_size> is -1, which is no number"
      ),
      (
        chain.changing("<Disk_size>16384", to: "<Disk_size>18446744073709551615"),
        "line 3: a disk of 18446744073709551615 sectors"
      ),
      (
        chain.changing("<Disk_size>16384", to: "<Disk_size>99999999999999999999"),
        "line 3: <Disk_size> is 99999999999999999999, which is no number"
      ),
      (
        chain.changing("<Disk_size>16384</Disk_size>", to: ""),
        "line 3: <Disk_Parameters> has no <Disk_size>"
      ),
      (
        chain.changing("<Disk_size>16384</Disk_size>", to: "<Disk_size/>"),
        "line 4: <Disk_size> has no text"
      ),
      (
        chain.changing("<Padding>", to: "<Heads>16</Heads><Padding>"),
        "line 3: <Disk_Parameters> has more than one <Heads>"
      ),
      (
        chain.changing("<Start>0", to: "<Start>128"),
        "line 11: the storage does not begin at sector 0; split disks are not supported"
      ),
      (
        chain.changing("</Storage>", to: "</Storage><Storage/>"),
        "line 10: <StorageData> has more than one <Storage>"
      ),
      (
        chain.changing("<Blocksize>128", to: "<Blocksize>63"),
        "line 11: clusters of 63 sectors; powers of two from 8 to 131072 are supported"
      ),
      (
        chain.changing("<Blocksize>128", to: "<Blocksize>262144"),
        "line 11: clusters of 262144 sectors; powers of two from 8 to 131072 are supported"
      ),
      (
        chain.changing("<Blocksize>128", to: "<Blocksize> 128"),
        "line 11: <Blocksize> is  128, which is no number"
      ),
      (
        chain.changing("<Type>Compressed", to: "<Type>QCOW2"),
        "line 15: the type of an image is QCOW2, not Compressed or Plain"
      ),
      (chain.changing("<File>root.hds</File>", to: ""), "line 15: <Image> has no <File>"),
      (
        chain.changing("<File>root.hds</File>", to: "<File>a/</File>"),
        "line 15: a/ is no name of a file"
      ),
      (
        chain.changing("<File>root.hds</File>", to: "<File>..</File>"),
        "line 15: .. is no name of a file"
      ),
      (
        chain.changing("<GUID>\(one)", to: "<GUID>\(one.dropFirst().dropLast())"),
        "line 15: <GUID> is \(one.dropFirst().dropLast()), which is no GUID in braces"
      ),
      (
        chain.changing("<GUID>\(one)", to: "<GUID>\(two)"),
        "line 20: two images are of the shot \(two)"
      ),
      (
        chain.changing("<GUID>\(one)", to: "<GUID>\(DescriptorText.guid(9))"),
        "line 34: the shot \(one) has no image"
      ),
      (
        chain.changing(
          "<File>root.hds</File>", to: "<File>root.hds.\(DescriptorText.guid(11))</File>"),
        "two shots have the file root.hds.\(DescriptorText.guid(11))"
      ),
      (
        chain.changing("<ParentGUID>\(DescriptorText.none)", to: "<ParentGUID>\(two)"),
        "\(one) has no way to a shot without parent: its ancestors are a circle"
      ),
      (
        chain.changing("<ParentGUID>\(DescriptorText.none)", to: "<ParentGUID>\(one)"),
        "\(one) has no way to a shot without parent: its ancestors are a circle"
      ),
      (
        chain.changing("<ParentGUID>\(one)", to: "<ParentGUID>\(DescriptorText.none)"),
        "\(one) and \(two) both have no parent"
      ),
      (
        chain.changing("<ParentGUID>\(one)", to: "<ParentGUID>\(DescriptorText.guid(9))"),
        "the parent \(DescriptorText.guid(9)) of \(two) is not there"
      ),
      (
        chain.changing("<TopGUID>\(top)", to: "<TopGUID>\(two)"),
        "\(top) is a shot, but the top is \(two)"
      ),
      (
        chain.changing("<ParentGUID>\(two)", to: "<ParentGUID>\(one)").changing(
          "<ParentGUID>\(one)", to: "<ParentGUID>\(top)"),
        "\(two) builds on the top \(top), which is written"
      ),
      (chain.replacing(one, with: DescriptorText.none), "a shot is called \(DescriptorText.none)"),
    ]
    for (text, expected) in cases {
      #expect(DescriptorText.fault(Array(text.utf8)) == expected)
    }
    let images = chain.changing("<Shot>", to: "<Shoot>").changing("</Shot>", to: "</Shoot>")
    #expect(
      DescriptorText.fault(Array(images.utf8)) == "line 32: the image of \(one) belongs to no shot")
  }

  @Test("has at most 256 images, and every chain of them is read")
  func manyShots() throws {
    func text(_ count: Int) -> String {
      DescriptorText.text(
        (0..<count).map { level in
          let digits = String(level + 1, radix: 16)
          func guid(_ digits: String) -> String {
            "{00000000-0000-4000-8000-\(String(repeating: "0", count: 12 - digits.count))\(digits)}"
          }
          return (
            level == count - 1 ? DescriptorText.top : guid(digits),
            level == 0 ? DescriptorText.none : guid(String(level, radix: 16)), "file\(level)"
          )
        })
    }
    #expect(try DescriptorText.read(text(256)).chain(to: .top).count == 256)
    #expect(DescriptorText.fault(Array(text(257).utf8)) == "257 images; 256 are the most")
  }

  @Test("never traps and never makes anything that is not written as it is read")
  func fuzz() throws {
    let seed: UInt64 = 20_261_125
    var random = SeededGenerator(seed: seed)
    let texts = [DescriptorText.chain, DescriptorText.tree].map { Array($0.utf8) }
    let words = [
      "<", ">", "</", "/>", "&", "&amp;", "&#", ";", "\"", "=", "<!--", "-->", "<!DOCTYPE", "<?",
      "{", "}", "\u{0}", "0", "18446744073709551616", "<Shot>", "</Shot>", "Plain", "<Temporary/>",
      DescriptorText.top, DescriptorText.none, DescriptorText.guid(1), "../../x", "\u{FEFF}", "é",
    ].map { Array($0.utf8) }
    var accepted = 0
    for _ in 0..<6_000 {
      var bytes = texts[Int.random(in: 0..<texts.count, using: &random)]
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let start = Int.random(in: 0...bytes.count, using: &random)
        let end = min(bytes.count, start + Int.random(in: 0...40, using: &random))
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes.removeSubrange(start..<end)
        case 1:
          bytes.replaceSubrange(
            start..<start, with: words[Int.random(in: 0..<words.count, using: &random)])
        case 2: bytes.replaceSubrange(start..<start, with: Array(bytes[start..<end]))
        default:
          guard start < bytes.count else { continue }
          bytes[start] = UInt8.random(in: 0...255, using: &random)
        }
      }
      guard let descriptor = try? Descriptor(parsing: bytes) else { continue }
      accepted += 1
      let again = try Descriptor(parsing: descriptor.file)
      #expect(again == descriptor, "seed \(seed): \(String(decoding: bytes, as: UTF8.self))")
    }
    #expect(accepted > 50)
  }
}
