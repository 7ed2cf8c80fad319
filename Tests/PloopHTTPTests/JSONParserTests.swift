import PloopControl
import PloopJSON
import Testing

@testable import PloopHTTP

@Suite("Reading JSON")
struct JSONParserTests {
  private static func parse(_ text: String) throws(Problem) -> JSON {
    try JSON.read(Array(text.utf8))
  }

  private static func refusal(_ bytes: [UInt8]) -> Problem? {
    do throws(Problem) {
      _ = try JSON.read(bytes)
      return nil
    } catch {
      return error
    }
  }

  static let accepted: [(String, JSON)] = [
    ("null", .null), (" \t\r\n true \n", .bool(true)), ("false", .bool(false)),
    ("0", .integer(0)), ("-0", .integer(0)), ("-12", .integer(-12)), ("66.0", .integer(66)),
    ("1e2", .integer(100)), ("1E+2", .integer(100)), ("2500e-2", .integer(25)),
    ("0.5", .number(0.5)), ("-1.25e1", .number(-12.5)), ("0e0", .integer(0)),
    ("9007199254740991.0", .integer(9_007_199_254_740_991)),
    ("9007199254740993", .integer(9_007_199_254_740_993)),
    ("9223372036854775807", .integer(.max)), ("-9223372036854775808", .integer(.min)),
    ("9223372036854775808", .number(9_223_372_036_854_775_808)), ("1e300", .number(1e300)),
    ("-9223372036854775809", .number(-9_223_372_036_854_775_808)),
    ("-9223372036854775808.0", .number(-9_223_372_036_854_775_808)),
    ("-9.223372036854775808e18", .number(-9_223_372_036_854_775_808)),
    ("123e-10000000", .integer(0)),
    (#""""#, .string("")), (#""a\/\"\\\b\f\n\r\t""#, .string("a/\"\\\u{8}\u{C}\n\r\t")),
    (#""\u00e9\u20AC\uD83D\uDE00""#, .string("é€😀")), (#""é€😀""#, .string("é€😀")),
    (#""\u0000""#, .string("\0")), (#""\uFFFF\u007f""#, .string("\u{FFFF}\u{7F}")),
    ("[]", .array([])), ("[ ]", .array([])),
    ("[1,[2],{}]", .array([.integer(1), .array([.integer(2)]), .object([])])),
    ("{}", .object([])),
    (#"{ "a" : 1 , "b" : null }"#, .members(["a": .integer(1), "b": .null])),
    (#"{"":0}"#, .members(["": .integer(0)])),
    (#"{"a":{"a":1}}"#, .members(["a": .members(["a": .integer(1)])])),
  ]

  @Test("what RFC 8259 allows is read as it is meant", arguments: accepted)
  func reads(text: String, value: JSON) throws {
    #expect(try Self.parse(text) == value)
  }

  static let refused = [
    "", " ", "nul", "nulll", "True", "NaN", "Infinity", "-Infinity", "undefined", "'a'", "a",
    "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1,,2]", "[1}", "[]]", "[] []", "[\u{0C}]",
    "{", "}", "{]", "{\"a\"}", "{\"a\":}", "{\"a\" 1}", "{\"a\":1,}", "{,}", "{a:1}", "{1:1}",
    "{'a':1}", "{\"a\":1 \"b\":2}", "{\"a\":1}}", "{\"a\":1}x", "{\"a\":1}\0", "1 2", "1,",
    "+1", "-", "--1", "-a", "01", "-01", "00", "1.", ".5", "-.5", "1.e1", "1e", "1e+", "1eE2",
    "1e1.5", "0x10", "1_000", "1e400", "-1e400", "１",
    "\"", "\"a", "\"\\", "\"\\\"", #""\x41""#, #""\'""#, #""\u""#, #""\u12""#, #""\u123g""#,
    #""\u+123""#, #""\u-123""#, #""\u 123""#, #""\U0041""#,
    #""\uD800""#, #""\uDC00""#, #""\uD800x""#, #""\uD800\n""#, #""\uD800\uD800""#,
    #""\uD800\u0041""#, #""\uDC00\uD800""#, #""\ud83d"#,
    "\"\n\"", "\"\t\"", "\"\u{1F}\"", "\"\0\"",
    "// a\n1", "/* a */1", "#1", "\u{FEFF}1", "\u{A0}1", "1\u{2028}", "\u{85}1",
  ]

  @Test("what RFC 8259 forbids is malformed", arguments: refused)
  func refuses(text: String) {
    #expect(Self.refusal(Array(text.utf8))?.error.code.rawValue == "malformed-json")
  }

  @Test(
    "what is not UTF-8 is malformed",
    arguments: [
      [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22],
      [0x22, 0xF4, 0x90, 0x80, 0x80, 0x22], [0x22, 0xC3, 0x22], [0xEF, 0xBB, 0xBF, 0x31],
      [0xFE, 0xFF, 0x00, 0x31], [0x31, 0x00],
    ] as [[UInt8]])
  func encodings(bytes: [UInt8]) {
    #expect(Self.refusal(bytes)?.error.code.rawValue == "malformed-json")
  }

  @Test("32 levels are read, 33 and 100,000 are not", arguments: ["[", "{\"a\":"])
  func depth(opening: String) {
    func nested(_ levels: Int) -> [UInt8] {
      let closing = opening == "[" ? "]" : "}"
      let inner = opening == "[" ? "" : "1"
      return Array(
        (String(repeating: opening, count: levels) + inner
          + String(repeating: closing, count: levels)).utf8)
    }
    #expect(Self.refusal(nested(32)) == nil)
    for levels in [33, 100_000] {
      #expect(Self.refusal(nested(levels))?.error.code.rawValue == "nested-too-deeply")
    }
  }

  @Test("a list has at most 65,536 items")
  func items() {
    func list(_ count: Int) -> [UInt8] {
      Array(("[" + Array(repeating: "1", count: count).joined(separator: ",") + "]").utf8)
    }
    #expect(Self.refusal(list(65_536)) == nil)
    #expect(Self.refusal(list(65_537))?.error.code.rawValue == "too-many-items")
  }

  @Test(
    "a key that is there twice is refused with its pointer, however it is spelled",
    arguments: [
      (#"{"a":1,"a":1}"#, "/a"), (#"{"a":1,"\u0061":1}"#, "/a"),
      (#"{"x":[{},{"b":{"a":1,"c":2,"a":3}}]}"#, "/x/1/b/a"), (#"{"a/b~":1,"a/b~":2}"#, "/a~1b~0"),
      (#"{"":1,"":2}"#, "/"), (#"{"é":1,"e\u0301":2}"#, "/é"),
    ])
  func duplicates(text: String, pointer: String) {
    let problem = Self.refusal(Array(text.utf8))
    #expect(problem?.error.code.rawValue == "duplicate-key")
    #expect(problem?.error.pointer == pointer)
  }

  @Test("what is written is read back the same, control characters included")
  func roundTrip() throws {
    let control = String(String.UnicodeScalarView((0..<0x80).compactMap { Unicode.Scalar($0) }))
    let value = JSON.members([
      "text": .string(control + "é€😀"), "none": .null, "flag": .bool(true), "half": .number(0.5),
      "list": .array([.integer(.max), .integer(.min), .array([]), .object([])]),
    ])
    #expect(try JSONParser.parse(value.encoded) == value)
  }
}
