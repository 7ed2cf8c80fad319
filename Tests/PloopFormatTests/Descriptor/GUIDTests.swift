import PloopFormat
import TestSupport
import Testing

@Suite("The GUID of a snapshot")
struct GUIDTests {
  @Test("is written in braces and lower case, and read in any case")
  func text() throws {
    let guid = try #require(GUID("{5FBAABE3-6958-40ff-92A7-860e329aab41}"))
    #expect(guid == .top)
    #expect(guid.description == "{5fbaabe3-6958-40ff-92a7-860e329aab41}")
    #expect(GUID.none.description == "{00000000-0000-0000-0000-000000000000}")
    #expect(GUID.backup.description == "{704718e1-2314-44c8-9087-d78ed36b0f4e}")
    #expect(GUID.top.isReserved && GUID.none.isReserved && GUID.backup.isReserved)
  }

  @Test("needs its braces in a descriptor, not from people")
  func braces() {
    #expect(GUID("5fbaabe3-6958-40ff-92a7-860e329aab41") == nil)
    #expect(GUID(lenient: "5fbaabe3-6958-40ff-92a7-860e329aab41") == .top)
    #expect(GUID(lenient: "{5fbaabe3-6958-40ff-92a7-860e329aab41}") == .top)
  }

  @Test(
    "is nothing else",
    arguments: [
      "", "{", "{}", "}{", "{5fbaabe3695840ff92a7860e329aab41}",
      "{5fbaabe3-6958-40ff-92a7-860e329aab4}", "{5fbaabe3-6958-40ff-92a7-860e329aab411}",
      "{5fbaabe3-6958-40ff-92a7-860e329aab4g}", "{5fbaabe36-958-40ff-92a7-860e329aab41}",
      "{+fbaabe3-6958-40ff-92a7-860e329aab41}", " {5fbaabe3-6958-40ff-92a7-860e329aab41}",
      "{\u{301}5fbaabe3-6958-40ff-92a7-860e329aab41}", "{5fbaabe3-6958-40ff-92a7-860e329aab41",
    ])
  func wrong(_ text: String) {
    #expect(GUID(text) == nil)
    #expect(GUID(lenient: text) == nil)
  }

  @Test("is new when it is random, and of version 4")
  func random() {
    var generator = SeededGenerator(seed: 7)
    var seen: Set<GUID> = []
    for _ in 0..<1000 {
      let guid = GUID.random(using: &generator)
      #expect(seen.insert(guid).inserted && !guid.isReserved)
      let digits = Array(guid.description)
      #expect(digits[15] == "4" && "89ab".contains(digits[20]))
      #expect(GUID(guid.description) == guid)
    }
    #expect(GUID.random() != GUID.random())
  }

  @Test("is made of a name, as other programs make it of an MD5")
  func named() {
    // uuid.UUID(bytes=hashlib.md5(name).digest(), version=3)
    #expect(
      GUID(named: "01KAR7E3V5W6X7Y8Z9ABCDEFGH").path == "b7966cb3-40e9-3751-ab57-47688377211c")
  }
}
