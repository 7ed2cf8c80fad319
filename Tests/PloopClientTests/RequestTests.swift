import PloopJSON
import TestSupport
import Testing

@testable import PloopClient

@Suite("Requests of ploopctl")
struct RequestTests {
  @Test("names and values are encoded, and what is nil is left out")
  func encoding() {
    let request = Request(
      .getDelta, ["a/b", "ä ?"], query: ["x": "1&2", "none": nil, "label.a=": "+é"])
    #expect(request.target == "/v1/devices/a%2Fb/deltas/%C3%A4%20%3F?x=1%262&label.a%3D=%2B%C3%A9")
    #expect(request.method == "GET")
  }

  @Test("addresses")
  func addresses() throws {
    #expect(try Endpoint("unix:a.sock") == .socket(path: "a.sock"))
    #expect(try Endpoint("/run/a.sock") == .socket(path: "/run/a.sock"))
    #expect(try Endpoint("https://[::1]:7447/") == .web(base: "https://[::1]:7447"))
    for wrong in [
      "", "unix:", "localhost", "ftp://a/", "http://", "http://a/v1", "http://a@b", "https://a b",
    ] {
      #expect(throws: ClientFault.self, "\(wrong)") { try Endpoint(wrong) }
    }
    for (text, isPrivate) in [
      ("http://127.0.0.1:7447", true), ("http://localhost", true), ("http://[::1]:1", true),
      ("http://127.0.0.1.example.org", false), ("http://localhost.example.org:1", false),
      ("http://10.0.0.1:7447", false), ("https://10.0.0.1:7447", true), ("unix:a", true),
    ] {
      #expect(try Endpoint(text).isPrivate == isPrivate, "\(text)")
    }
  }

  @Test("a token is read with its header or without, and goes only where nobody else reads it")
  func tokens() throws {
    let folder = try TemporaryFolder()
    let file = "\(folder.path)/token"
    func find(_ content: String, _ address: String = "https://a") throws -> Token? {
      try Tool.shell("printf '%b' '\(content)' > '\(file)'")
      return try Token.find(file: file, for: try Endpoint(address))
    }
    #expect(try find("plp_a\\n")?.secret == "plp_a")
    let header = try find("Authorization: Bearer plp_b\\n\\n", "unix:a")
    #expect(header?.secret == "plp_b" && header?.source == .file(path: file, isHeader: true))
    for wrong in ["", "\\n", "a b", "a\\nX-Other: b", "\\0303\\0244"] {
      #expect(throws: ClientFault.self, "\(wrong)") { try find(wrong) }
    }
    #expect(throws: ClientFault.self) { try find("plp_a", "http://10.0.0.1:7447") }
    #expect(throws: ClientFault.self) {
      try Token.find(file: "\(folder.path)/none", for: try Endpoint("unix:a"))
    }
  }

  @Test("curl is told everything but the secret")
  func curl() throws {
    var text = CurlText(
      endpoint: try Endpoint("https://a:1"),
      token: Token(secret: "plp_secret", source: .environment),
      identity: [("--cacert", "a b.pem"), ("--cert", nil)])
    let request = Request(
      .addSnapshot, ["vm1"], headers: ["Prefer: wait=5"], body: .members(["name": .string("it's")]))
    #expect(
      text.text(of: request) == """
        curl -sS --fail-with-body --cacert 'a b.pem' -X POST -H 'Prefer: wait=5' -H @- \
        -H 'Content-Type: application/json' --data-raw '{"name":"it'\\''s"}' \
        https://a:1/v1/devices/vm1/snapshots <<END
        Authorization: Bearer $PLOOPD_TOKEN
        END
        """)
    text = CurlText(
      endpoint: try Endpoint("unix:a"),
      token: Token(secret: "plp_secret", source: .file(path: "t", isHeader: true)), identity: [])
    #expect(
      text.text(of: Request(.listDevices, query: ["limit": "1"]))
        == "curl -sS --fail-with-body --unix-socket a -H @t 'http://localhost/v1/devices?limit=1'")
  }

  @Test("each status of an answer is a kind of problem")
  func statuses() {
    let kinds: [(Int, Outcome)] = [
      (400, .usage), (401, .refused), (403, .refused), (404, .notFound), (405, .usage),
      (409, .conflict), (410, .notFound), (412, .conflict), (413, .usage), (421, .refused),
      (422, .usage), (429, .conflict), (431, .usage), (500, .other), (503, .unreachable),
    ]
    for (status, kind) in kinds { #expect(Outcome(httpStatus: status) == kind, "\(status)") }
    #expect(Set(Outcome.allCases.map(\.rawValue)).count == Outcome.allCases.count)
  }

  @Test("a problem is told with cause, who is in the way, and what to do")
  func problems() throws {
    let problem = try JSONParser.parse(
      Array(
        #"{"code":"device-busy","detail":"vm1 is busy","cause":"a merge","holder":{"kind":"job","id":"1"},"errors":[{"pointer":"/size"}],"clients":[{"peer":"uid 0"}],"backups":["a","b"],"free_bytes":1024,"remedy":"Wait.","request_id":"r1"}"#
          .utf8))
    #expect(
      ClientFault(.conflict, problem: problem).lines == [
        "vm1 is busy (device-busy)", "  cause: a merge", "  holder: job 1", "  at: /size",
        "  client: uid 0", "  backups: a b", "  free: 1 KiB", "  remedy: Wait.", "  request: r1",
      ])
  }

  @Test("parameters of a job by their paths")
  func parameters() throws {
    let json = try Parameters.json(["to.id=vm2", "to.size=5", "what=[\"a\"]", "b=x=y", "c="])
    #expect(
      String(decoding: json.encoded, as: UTF8.self)
        == #"{"to":{"id":"vm2","size":5},"what":["a"],"b":"x=y","c":""}"#)
  }
}
