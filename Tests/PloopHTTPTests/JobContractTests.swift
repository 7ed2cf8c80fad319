import PloopJSON
import Testing

@testable import PloopControl
@testable import PloopHTTP

/// The schemas of requests for jobs and what takes the requests apart allow the same.
@Suite("What openapi.yaml says of each job")
struct JobContractTests {
  private let schema: JSONSchema
  private let wanted: JSON

  init() throws {
    schema = JSONSchema(document: try Contract.own.get().document)
    wanted = .object([JSON.Member(name: "$ref", value: .string("#/components/schemas/JobRequest"))])
  }

  private static let guid = "6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01"

  /// The type, a device or `-`, and perhaps parameters.
  private static func body(_ line: String) -> String {
    let words = line.replacing("GUID", with: "\"\(guid)\"").split(
      separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
    let device = words[1] == "-" ? "" : #","device":"\#(words[1])""#
    let params = words.count < 3 ? "" : #","params":\#(words[2])"#
    return #"{"type":"\#(words[0])"\#(device)\#(params)}"#
  }

  static let allowed = [
    "merge vm", "merge vm {}", #"merge vm {"level":0,"direction":"backward"}"#,
    #"merge vm {"snapshot":GUID,"direction":"auto"}"#, #"delete_snapshot vm {"snapshot":GUID}"#,
    "hash vm", #"hash vm {"what":"deltas"}"#, #"resize vm {"size":1}"#,
    #"resize vm {"size":9007199254740991}"#, "compact vm",
    #"compact vm {"what":["holes","defragment"]}"#, "copy_up vm", "copy_up vm {}",
    #"backup vm {"target":"nas"}"#,
    #"backup vm {"target":"nas","mode":"full","base_checkpoint":"a","new_checkpoint":"b","spill":{}}"#,
    #"backup vm {"target":"nas","snapshot":GUID,"mode":"incremental"}"#,
    #"backup vm {"to":{"type":"directory","path":"a","mark":"m"},"spill":{"path":"s","max_bytes":4096}}"#,
    #"backup vm {"to":{"type":"file","path":"a","format":"ploop1","mark":"m"},"new_checkpoint":"b"}"#,
    #"backup vm {"to":{"type":"nbd","uri":"nbds://h","tls":{"certificates":"c","verify":false}}}"#,
    #"backup vm {"to":{"type":"file","path":"a"},"snapshot":GUID}"#,
    #"migrate vm {"to":{"nbd":"nbd://h","tls":{}},"max_downtime_ms":600000,"source":"detached"}"#,
    #"migrate vm {"to":{"ploopd":{"api":"https://h","credentials":"c","nbd":"nbd://h","tls":{},"id":"vm","directory":"d","export":"e"}}}"#,
    #"migrate vm {"to":{"stream":"tcp://h:1"},"source":"suspended"}"#,
    "check vm", #"check vm {"repair":"none"}"#, #"check - {"image":"a","repair":"safe"}"#,
    #"check - {"deltas":["a",{"path":"b","format":"raw"}]}"#, #"check - {"descriptor":"a"}"#,
    #"check - {"descriptor":"a","snapshot":GUID,"repair":"none"}"#,
    #"check - {"image":"a","repair":"force","plan":"p"}"#,
    #"check - {"deltas":["a"],"repair":"force","plan":"p"}"#,
    #"check - {"descriptor":"a","repair":"force","plan":"p"}"#,
    #"clone vm {"to":{"id":"c","directory":"c"}}"#,
    #"clone vm {"snapshot":GUID,"mode":"full","to":{"id":"c","directory":"c","export":"e","version":1}}"#,
    #"clone vm {"snapshot":GUID,"mode":"linked","to":{"id":"c","directory":"c","export":"e"}}"#,
    #"clone vm {"to":{"id":"c","directory":"c","export":"e","access":{"tls":true}}}"#,
    #"restore - {"target":"nas","backup":"b","to":{"id":"c","directory":"c","export":"e","access":{"names":["psk:a"]}}}"#,
    #"clone vm {"snapshot":GUID,"mode":"linked","to":{"id":"c","directory":"c","export":"e","access":{"addresses":["::1","::1"]}}}"#,
    #"migrate vm {"to":{"ploopd":{"api":"https://h","nbd":"nbd://h","directory":"d","export":"e","access":{"tls":true,"names":["dns:x"]}}}}"#,
    #"clone - {"from":{"target":"nas","backup":"b"},"mode":"full","to":{"id":"c","directory":"c"}}"#,
    #"clone - {"from":{"nbd":"nbd://h","cluster_size":4096},"to":{"id":"c","directory":"c"}}"#,
    #"import - {"from":{"image":"i","format":"qcow2","snapshot":GUID,"cluster_size":67108864},"to":{"id":"c","directory":"c"}}"#,
    #"import - {"from":{"nbd":"nbd://h"},"mode":"full","to":{"id":"c","directory":"c","version":2}}"#,
    #"export vm {"to":{"image":"i","format":"ploop1","version":1}}"#,
    #"export vm {"snapshot":GUID,"to":{"nbd":"nbd://h"}}"#,
    #"export - {"from":{"image":"i"},"to":{"image":"i","format":"raw"}}"#,
    #"restore - {"target":"nas","backup":"b","to":{"id":"c","directory":"c","version":2}}"#,
    #"restore - {"target":"nas","backup":"b","into":"d"}"#, #"verify - {"target":"nas"}"#,
    #"verify - {"target":"nas","backup":"b"}"#, #"verify - {"target":"nas","device":"vm"}"#,
    #"prune vm {"keep_last":1,"hourly":1,"daily":1,"weekly":1,"monthly":1,"yearly":1}"#,
    #"prune - {"target":"nas","device":"vm","daily":1}"#,
    #"clean - {"paths":["a",{"path":"b"},{"path":"c","inode":1}]}"#,
  ]

  static let refused = [
    "none vm", "merge -", #"merge vm {"level":0,"snapshot":GUID}"#, #"merge vm {"level":-1}"#,
    #"merge vm {"level":9007199254740992}"#, #"merge vm {"direction":"down"}"#, "merge vm []",
    #"merge vm {"snapshot":"x"}"#, #"merge vm {"snapshot":null}"#, #"merge vm {"x":1}"#,
    "delete_snapshot vm", #"delete_snapshot vm {"level":0}"#,
    #"delete_snapshot - {"snapshot":GUID}"#,
    #"hash vm {"what":"all"}"#, "hash -", "resize vm", #"resize vm {"size":"1"}"#,
    #"compact vm {"what":[]}"#, #"compact vm {"what":["holes","holes"]}"#,
    #"copy_up vm {"snapshot":GUID}"#, "copy_up -", #"compact vm {"what":["all"]}"#,
    #"compact vm {"what":"holes"}"#, "backup vm", "backup vm {}",
    #"backup - {"target":"nas"}"#, #"backup vm {"target":"nas","mode":"some"}"#,
    #"backup vm {"target":"nas","to":{"type":"file","path":"a"}}"#,
    #"backup vm {"target":"nas","snapshot":GUID,"new_checkpoint":"b"}"#,
    #"backup vm {"target":"nas","snapshot":GUID,"spill":{}}"#,
    #"backup vm {"target":"nas","new_checkpoint":"B"}"#,
    #"backup vm {"target":"nas","spill":{"x":1}}"#,
    #"backup vm {"to":{"type":"tape","path":"a"}}"#, #"backup vm {"to":{"path":"a"}}"#,
    #"backup vm {"to":{"type":"directory","path":"a","format":"raw"}}"#,
    #"backup vm {"to":{"type":"file","path":"a","tls":{}}}"#,
    #"backup vm {"to":{"type":"file","path":"a","format":"qcow2"}}"#,
    #"backup vm {"to":{"type":"nbd","uri":"nbd://h","mark":"m"}}"#,
    #"backup vm {"to":{"type":"nbd","uri":"nbds://h","tls":{"certificates":null}}}"#,
    #"backup vm {"to":{"type":"nbd","path":"a"}}"#, "migrate vm", #"migrate vm {"to":{}}"#,
    #"migrate - {"to":{"nbd":"nbd://h"}}"#, #"migrate vm {"to":{"nbd":"nbd://h"},"source":"x"}"#,
    #"migrate vm {"to":{"nbd":"nbd://h"},"max_downtime_ms":0}"#,
    #"migrate vm {"to":{"nbd":"nbd://h"},"max_downtime_ms":600001}"#,
    #"migrate vm {"to":{"nbd":"nbd://h","stream":"tcp://h:1"}}"#,
    #"migrate vm {"to":{"stream":"tcp://h:1","tls":{}}}"#,
    #"migrate vm {"to":{"ploopd":{"api":"https://h","nbd":"nbd://h"}}}"#,
    #"migrate vm {"to":{"ploopd":{"api":"https://h","nbd":"nbd://h","directory":"d","id":"VM"}}}"#,
    #"migrate vm {"to":{"ploopd":{"api":"https://h","nbd":"nbd://h","directory":"d","x":1}}}"#,
    "check -", "check - {}", #"check vm {"repair":"safe"}"#, #"check vm {"image":"a"}"#,
    #"check - {"image":"a","deltas":["b"]}"#, #"check - {"deltas":[]}"#, #"check - {"deltas":[1]}"#,
    #"check - {"deltas":[{"path":"b","format":"qcow2"}]}"#,
    #"check - {"image":"a","snapshot":GUID}"#, #"check - {"image":"a","repair":"force"}"#,
    #"check - {"image":"a","plan":"p"}"#, #"check - {"image":"a","repair":"safe","plan":"p"}"#,
    #"check - {"descriptor":"a","snapshot":GUID,"repair":"safe"}"#,
    #"check - {"descriptor":"a","snapshot":GUID,"repair":"force","plan":"p"}"#,
    "clone vm", "clone vm {}", #"clone vm {"to":{"id":"c"}}"#,
    #"clone - {"to":{"id":"c","directory":"c"}}"#,
    #"clone vm {"to":{"id":"C","directory":"c"}}"#,
    #"clone vm {"to":{"id":"c","directory":"c","export":"e","access":{"names":[]}}}"#,
    #"clone vm {"to":{"id":"c","directory":"c","export":"e","access":{"names":["a",1]}}}"#,
    #"clone vm {"to":{"id":"c","directory":"c","export":"e","access":{"users":["psk:a"]}}}"#,
    #"clone vm {"mode":"linked","to":{"id":"c","directory":"c"}}"#,
    #"clone vm {"mode":"other","to":{"id":"c","directory":"c"}}"#,
    #"clone vm {"to":{"id":"c","directory":"c","version":3}}"#,
    #"clone vm {"snapshot":GUID,"mode":"linked","to":{"id":"c","directory":"c","version":2}}"#,
    #"clone vm {"from":{"image":"i"},"to":{"id":"c","directory":"c"}}"#,
    #"clone - {"from":{"image":"i"},"mode":"linked","to":{"id":"c","directory":"c"}}"#,
    #"clone - {"from":{"target":"nas"},"to":{"id":"c","directory":"c"}}"#,
    #"clone - {"from":{},"to":{"id":"c","directory":"c"}}"#,
    #"import - {"to":{"id":"c","directory":"c"}}"#,
    #"import - {"from":{"target":"nas","backup":"b"},"to":{"id":"c","directory":"c"}}"#,
    #"import vm {"from":{"image":"i"},"to":{"id":"c","directory":"c"}}"#,
    #"import - {"from":{"image":"i","cluster_size":5000},"to":{"id":"c","directory":"c"}}"#,
    #"import - {"from":{"image":"i","format":"vmdk"},"to":{"id":"c","directory":"c"}}"#,
    "export vm", #"export vm {"to":{}}"#, #"export vm {"to":{"image":"i"}}"#,
    #"export vm {"to":{"image":"i","format":"qcow2"}}"#,
    #"export vm {"to":{"image":"i","format":"raw","version":1}}"#,
    #"export vm {"to":{"image":"i","format":"ploop1","version":3}}"#,
    #"export vm {"to":{"nbd":"nbd://h","image":"i"}}"#, #"export - {"to":{"nbd":"nbd://h"}}"#,
    #"export - {"from":{"image":"i"},"snapshot":GUID,"to":{"nbd":"nbd://h"}}"#,
    #"restore - {"target":"nas","backup":"b"}"#, #"restore - {"backup":"b","into":"d"}"#,
    #"restore - {"target":"nas","backup":"b","into":"d","to":{"id":"c","directory":"c"}}"#,
    #"restore vm {"target":"nas","backup":"b","into":"d"}"#, "verify -",
    #"verify - {"target":"nas","backup":"b","device":"vm"}"#,
    #"verify - {"target":"nas","device":"VM"}"#,
    #"verify vm {"target":"nas"}"#, "prune - {}", #"prune - {"daily":1}"#,
    #"prune vm {"target":"nas","daily":1}"#, #"prune vm {"device":"vm","daily":1}"#,
    #"prune - {"target":"nas","device":"VM","daily":1}"#, #"prune vm {"daily":-1}"#,
    "clean -", #"clean - {"paths":[]}"#, #"clean - {"paths":[1]}"#, #"clean vm {"paths":["a"]}"#,
    #"clean - {"paths":[{"inode":1}]}"#, #"clean - {"paths":[{"path":"a","x":1}]}"#,
  ]

  /// - Returns: the slug of what it is refused with; nil where it is taken.
  private func refusal(_ body: JSON) -> String? {
    let request: JobRequest
    do throws(Problem) { request = try jobRequest(try Fields(body)) } catch {
      return error.error.code.rawValue
    }
    do throws(ServiceError) { _ = try JobRegistry.standard.work(request) } catch {
      return error.code.rawValue
    }
    return nil
  }

  @Test("it allows what is taken, and nothing that is refused as wrong")
  func shapes() throws {
    for line in Self.allowed {
      let body = try JSONParser.parse(Array(Self.body(line).utf8))
      #expect(schema.complaints(about: body, by: wanted) == [], "\(line)")
      #expect(refusal(body) == nil, "\(line)")
    }
    for line in Self.refused {
      let body = try JSONParser.parse(Array(Self.body(line).utf8))
      #expect(schema.complaints(about: body, by: wanted) != [], "\(line)")
      let slug = refusal(body) ?? "none"
      #expect(["invalid-value", "unknown-field"].contains(slug), "\(line): \(slug)")
    }
  }

  @Test("who may use a door that there is not to be is well-formed, and impossible")
  func rulesOfNoDoor() throws {
    for line in [
      #"clone vm {"to":{"id":"c","directory":"c","access":{"tls":true}}}"#,
      #"migrate vm {"to":{"ploopd":{"api":"https://h","nbd":"nbd://h","directory":"d","access":{"tls":true}}}}"#,
    ] {
      let body = try JSONParser.parse(Array(Self.body(line).utf8))
      #expect(schema.complaints(about: body, by: wanted) == [], "\(line)")
      #expect(refusal(body) == "value-impossible", "\(line)")
    }
  }

  @Test("every type of job has its schemas, each of one type, and every member of theirs is taken")
  func types() throws {
    var types: Set<String> = []
    for reference in schema.find(.string("#/components/schemas/JobRequest")).member("oneOf")?.items
      ?? []
    {
      let request = schema.find(reference.member("$ref") ?? .null)
      let names = request.member("properties")?.member("type")?.member("enum")?.items ?? []
      #expect(names.count == 1)
      types.formUnion(names.compactMap(\.text))
    }
    #expect(types == Set(JobRegistry.standard.names))
    // What stands in the contract stands in some body above.
    let bodies = Self.allowed.joined()
    for component in schema.find(.string("#/components/schemas")).members
    where component.name.hasSuffix("Parameters") {
      for member in component.value.member("properties")?.members ?? [] {
        let isUsed = bodies.contains("\"\(member.name)\":")
        #expect(isUsed, "\(component.name): \(member.name)")
      }
    }
  }

  @Test("what all jobs have is taken as the contract says it")
  func common() throws {
    let allowed = [
      #""priority":100,"after":["x"],"limits":{"bps":1,"iops":0},"labels":{"a":"b"},"dedupe_key":"k""#,
      #""not_before":"2026-11-25T18:00:00Z","retry":{"max_attempts":100,"backoff_seconds":0}"#,
      #""not_before":"2026-11-25T18:00:00.123Z""#, #""not_before":"2026-11-25T18:00:00+01:00""#,
    ]
    let refused = [
      #""priority":101"#, #""after":[1]"#, #""dedupe_key":"""#, #""limits":{"bps":-1}"#,
      #""retry":{"max_attempts":0}"#, #""not_before":"tomorrow""#, #""labels":{"":"x"}"#, #""x":1"#,
    ]
    for (members, fits) in allowed.map({ ($0, true) }) + refused.map({ ($0, false) }) {
      let body = try JSONParser.parse(Array(#"{"type":"hash","device":"vm",\#(members)}"#.utf8))
      #expect(schema.complaints(about: body, by: wanted).isEmpty == fits, "\(members)")
      // Labels are looked at when the job is added.
      guard !members.contains("labels") || fits else { continue }
      #expect((refusal(body) == nil) == fits, "\(members)")
    }
  }

  @Test("of a job that is there only what may change is taken")
  func change() {
    let change = schema.find(.string("#/components/schemas/JobParametersChange"))
    let names = (change.member("properties")?.members ?? []).map(\.name)
    #expect(Set(names) == JobRegistry.standard.changeable)
  }
}
