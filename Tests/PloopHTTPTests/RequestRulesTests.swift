import PloopControl
import PloopJSON
import Testing

@testable import PloopHTTP

@Suite("What is demanded of any request")
struct RequestRulesTests {
  typealias Headers = [(name: String, value: String)]

  private func refusal(
    _ headers: Headers, method: String = "GET", authority: String? = nil, body: String = "",
    hosts: Set<String> = RequestRules.ownHosts
  ) -> String? {
    do throws(Problem) {
      let request = HTTPRequest(
        method: method, target: "/v1".utf8, headers: headers, body: Array(body.utf8))
      try RequestRules.checkFraming(request)
      try RequestRules.check(request, authority: authority, hosts: hosts)
      return nil
    } catch {
      return error.error.code.rawValue
    }
  }

  @Test(
    "the names of this machine are served, with any port",
    arguments: [
      "localhost", "LocalHost", "localhost:7447", "127.0.0.1", "127.0.0.1:80", "[::1]",
      "[::1]:7447", "localhost:",
    ])
  func ownHosts(host: String) {
    #expect(refusal([("Host", host)]) == nil)
    #expect(refusal([("host", "evil.example")], authority: host) == nil)
  }

  @Test(
    "any other name is not, so that no page's own name can be turned to this address",
    arguments: [
      "", "evil.example", "evil.example:7447", "localhost.evil.example", "evil.localhost",
      "127.0.0.1.evil.example", "127.0.0.2", "[::2]", "::1", "[::1", "[::1]evil", "[::1]:x",
      "localhost:80:90", "localhost:evil", "localhost:٨٠", "user@localhost", "localhost ",
    ])
  func otherHosts(host: String) {
    #expect(refusal([("Host", host)]) == "wrong-host")
    #expect(refusal([("Host", "localhost")], authority: host) == "wrong-host")
  }

  @Test("names that the service was given are served too, whatever their case")
  func givenHosts() {
    let hosts: Set<String> = ["ploop.example.org", "10.0.0.5"]
    for host in ["ploop.example.org", "Ploop.Example.ORG:7447", "10.0.0.5:7447"] {
      #expect(refusal([("Host", host)], hosts: hosts) == nil, "\(host)")
    }
    for host in ["example.org", "a.ploop.example.org", "localhost"] {
      #expect(refusal([("Host", host)], hosts: hosts) == "wrong-host", "\(host)")
    }
  }

  @Test("a request has exactly one Host header")
  func oneHost() {
    #expect(refusal([]) == "bad-request")
    #expect(refusal([("Host", "localhost"), ("HOST", "localhost")]) == "bad-request")
    #expect(
      refusal([("Host", "localhost"), ("Host", "evil")], authority: "localhost") == "bad-request")
  }

  @Test("one header at most says where the body ends, and it is plain")
  func framing() {
    let host = ("Host", "localhost")
    let length = ("Content-Length", "0")
    let chunked = ("Transfer-Encoding", "chunked")
    #expect(refusal([host, length]) == nil)
    #expect(refusal([host, ("transfer-encoding", "Chunked")]) == nil)
    #expect(refusal([host, length, length]) == "bad-request")
    #expect(refusal([host, length, chunked]) == "bad-request")
    #expect(refusal([host, chunked, chunked]) == "bad-request")
    for coding in ["gzip", "gzip, chunked", "chunked, gzip", "identity", "xchunked", ""] {
      #expect(refusal([host, ("Transfer-Encoding", coding)]) == "bad-request", "\(coding)")
    }
  }

  @Test("who asks whether a body is wanted hears at once that it is too large")
  func expectation() {
    let host = ("Host", "localhost")
    let expect = ("Expect", "100-Continue")
    #expect(refusal([host, expect, ("Content-Length", "1048576")]) == nil)
    #expect(refusal([host, expect, ("Content-Length", "1048577")]) == "body-too-large")
    #expect(
      refusal([host, expect, ("Content-Length", "99999999999999999999")]) == "body-too-large")
  }

  @Test("pages of other origins are refused")
  func origins() {
    func refusal(_ origin: String, host: String = "localhost:7447") -> String? {
      self.refusal([("Host", host), ("Origin", origin)])
    }
    #expect(refusal("http://localhost:7447") == nil)
    #expect(refusal("https://localhost:7447") == nil)
    let others = [
      "http://localhost", "http://localhost:3000", "http://127.0.0.1:7447", "null", "",
      "http://evil.example", "http://localhost:7447.evil.example",
    ]
    for origin in others { #expect(refusal(origin) == "cross-site-request", "\(origin)") }
    let site = { self.refusal([("Host", "localhost"), ("Sec-Fetch-Site", $0)]) }
    #expect(site("cross-site") == "cross-site-request")
    for own in ["same-origin", "same-site", "none"] { #expect(site(own) == nil) }
  }

  @Test("a body is JSON and says so, which no form can")
  func types() {
    func refusal(_ method: String, _ types: String...) -> String? {
      self.refusal([("Host", "localhost")] + types.map { ("Content-Type", $0) }, method: method)
    }
    for type in [
      "application/json", "Application/JSON", "application/json; charset=utf-8",
      "application/json ;charset=UTF-8",
    ] {
      #expect(refusal("POST", type) == nil, "\(type)")
      #expect(refusal("PATCH", type) == nil, "\(type)")
    }
    #expect(refusal("PATCH", "application/merge-patch+json") == nil)
    #expect(refusal("POST", "application/merge-patch+json") == "unsupported-media-type")
    // Some verbs need no body; what no page may do without one its origin forbids.
    #expect(refusal("POST") == nil)
    #expect(
      self.refusal([("Host", "localhost")], method: "POST", body: "{}") == "unsupported-media-type")
    #expect(
      self.refusal([("Host", "localhost"), ("Origin", "http://evil.example")], method: "POST")
        == "cross-site-request")
    #expect(refusal("POST", "application/json", "text/plain") == "unsupported-media-type")
    for type in [
      "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
      "application/jsonx", "text/json", "application/problem+json",
    ] {
      #expect(refusal("POST", type) == "unsupported-media-type", "\(type)")
    }
    #expect(refusal("GET", "text/plain") == nil)
    #expect(refusal("DELETE") == nil)
  }
}
