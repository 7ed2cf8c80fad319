import Logging
import PloopControl
import PloopIO
import PloopJSON
import Testing

@testable import PloopHTTP

@Suite("HTTP as it comes over a socket")
struct FramingTests {
  static let oddRequests: [(String, Int, String?)] = [
    ("GET /v1 HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400, "bad-request"),
    ("GET /v1 HTTP/1.0\r\n\r\n", 400, "bad-request"),
    // This one the library refuses itself.
    ("GET /v1 HTTP/1.1\r\n\r\n", 400, nil),
    (
      "POST /v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
      400, "bad-request"
    ),
    (
      "POST /v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
      400, "bad-request"
    ),
    (
      "POST /v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      400, "bad-request"
    ),
    (
      "POST /v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: x\r\n\r\n{}",
      400, nil
    ),
    ("FOO /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed"),
    ("GET /v1 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "wrong-host"),
    ("GET http://evil.example/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 421, "wrong-host"),
    ("GET http://localhost/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, nil),
    ("GET /v1/devices/a%2Fb HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "device-not-found"),
    ("GET /v1/devices/%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad-request"),
    ("GET /v1/devices/\u{1B}[2J HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "device-not-found"),
    ("GET /v1/devices?label.a%3Db=c+d%26 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, nil),
    ("GET /v1/devices?limit=1&limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "invalid-value"),
    ("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad-request"),
    ("GET /v1/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "not-found"),
    (
      "GET /v1 HTTP/1.1\r\nHost: localhost\r\nX-Long: \(String(repeating: "x", count: 40_000))\r\n\r\n",
      431, "header-too-large"
    ),
    (
      "GET /v1 HTTP/1.1\r\nHost: localhost\r\n\(String(repeating: "X-A: b\r\n", count: 100))\r\n",
      431, "header-too-large"
    ),
    (
      "GET /v1 HTTP/1.1\r\nHost: localhost\r\n\(String(repeating: "X-A: b\r\n", count: 99))\r\n",
      200, nil
    ),
    (
      "GET /\(String(repeating: "x", count: 8_192)) HTTP/1.1\r\nHost: localhost\r\n\r\n", 414,
      "target-too-long"
    ),
    (
      "GET /\(String(repeating: "x", count: 8_191)) HTTP/1.1\r\nHost: localhost\r\n\r\n", 404,
      "not-found"
    ),
    // Beyond these the library refuses by itself.
    (
      "GET /v1 HTTP/1.1\r\nHost: localhost\r\nX-Long: \(String(repeating: "x", count: 80_000))\r\n\r\n",
      431, nil
    ),
    ("GET /\(String(repeating: "x", count: 80_000)) HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, nil),
  ]

  @Test(
    "what HTTP forbids, and what this service does, gets its status", arguments: oddRequests,
    LiveServer.Door.allCases)
  func odd(request: (String, Int, String?), door: LiveServer.Door) throws {
    let live = try LiveServer()
    let reply = try #require(try live.ask(request.0, door))
    #expect(reply.status == request.1)
    guard let slug = request.2 else { return }
    #expect(reply.header("Content-Type") == "application/problem+json")
    let problem = try JSONParser.parse(Array(reply.body.utf8))
    #expect(problem.member("code") == .string(slug))
    #expect(problem.member("status") == .integer(Int64(request.1)))
  }

  @Test("behind a request whose end is unclear nothing more is read")
  func smuggling() throws {
    let live = try LiveServer()
    let client = try live.client()
    client.send(
      "POST /v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nDELETE /v1/devices/vm1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    #expect(client.reply()?.status == 400)
    #expect(client.isEnded())
    #expect(live.service.state.withLock { $0.modes.isEmpty })
  }

  @Test("a body too large is 413, and the connection goes on", arguments: LiveServer.Door.allCases)
  func large(door: LiveServer.Door) throws {
    let live = try LiveServer()
    let client = try live.client(door)
    let head =
      "POST /v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    client.send("\(head)Content-Length: 1048577\r\n\r\n")
    client.send([UInt8](repeating: 0x20, count: 1_048_577))
    #expect(client.reply()?.status == 413)
    client.send("\(head)Transfer-Encoding: chunked\r\n\r\n")
    for _ in 0..<33 { client.send("8000\r\n\(String(repeating: " ", count: 32_768))\r\n") }
    client.send("0\r\n\r\n")
    #expect(client.reply()?.status == 413)
    // The most that is read: spaces only, which is no JSON.
    client.send("\(head)Content-Length: 1048576\r\n\r\n")
    client.send([UInt8](repeating: 0x20, count: 1_048_576))
    #expect(client.reply()?.status == 400)
    client.send("\(head)Content-Length: 2000000\r\nExpect: 100-continue\r\n\r\n")
    #expect(client.reply()?.status == 413)
    #expect(client.isEnded())
  }

  @Test("a body in chunks is as good as one of known length")
  func chunks() throws {
    let live = try LiveServer()
    let client = try live.client()
    let body = #"{"id":"new","deltas":[{"path":"a.hds"}]}"#
    client.send(
      "POST /v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for character in body { client.send("1;note=x\r\n\(character)\r\n") }
    client.send("0\r\nX-Trailer: 1\r\n\r\n")
    #expect(client.reply()?.status == 201)
    #expect(live.service.state.withLock { $0.attached.first?.id } == "new")
  }

  @Test("requests that come at once are answered in their order")
  func pipelined() throws {
    let live = try LiveServer()
    let client = try live.client()
    let paths = (0..<200).map { $0 % 3 == 0 ? "/v1/devices/vm1" : "/v1/devices/none\($0)" }
    client.send(paths.map { "GET \($0) HTTP/1.1\r\nHost: localhost\r\n\r\n" }.joined())
    for path in paths {
      let reply = try #require(client.reply())
      let body = try JSONParser.parse(Array(reply.body.utf8))
      if reply.status == 200 {
        #expect(path == "/v1/devices/vm1" && body.member("id") == .string("vm1"))
      } else {
        #expect(body.member("instance") == .string(path))
      }
    }
  }

  @Test("a request that comes byte by byte is one")
  func dripping() throws {
    let live = try LiveServer()
    let client = try live.client(.tcp)
    let request =
      "POST /v1/exports HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n{\"name\":\"d1\",\"device\":\"vm1\"} "
    for byte in request.utf8 { #expect(client.send([byte])) }
    #expect(client.reply()?.status == 201)
  }

  @Test("HEAD has the headers of GET and no body", arguments: ["/v1/devices/vm1", "/v1/none"])
  func head(path: String) throws {
    let live = try LiveServer()
    let client = try live.client()
    client.send("GET \(path) HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: same\r\n\r\n")
    let get = try #require(client.reply())
    client.send("HEAD \(path) HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: same\r\n\r\n")
    let head = try #require(client.reply(hasBody: false))
    #expect(head.status == get.status)
    let names = ["Content-Type", "Content-Length", "ETag", "X-Request-Id", "Cache-Control"]
    for name in names { #expect(head.header(name) == get.header(name)) }
    #expect(get.header("Date") != nil && head.header("Date") != nil)
    // The next reply begins where HEAD's ended.
    client.send("OPTIONS /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    #expect(client.reply()?.status == 204)
  }

  @Test("a connection stays until one side says that it ends")
  func keepAlive() throws {
    let live = try LiveServer()
    let client = try live.client()
    for _ in 0..<50 {
      client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
      #expect(client.reply()?.status == 200)
    }
    client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    #expect(client.reply()?.status == 200)
    #expect(client.isEnded())
    let old = try live.client()
    old.send("GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
    #expect(old.reply()?.status == 200)
    #expect(old.isEnded())
  }

  @Test("the client's request id comes back, unless it is not fit for a log")
  func requestIDs() throws {
    let live = try LiveServer()
    func id(_ sent: String) throws -> String? {
      try live.ask("GET /v1 HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: \(sent)\r\n\r\n")?
        .header("X-Request-Id")
    }
    #expect(try id("abc-1") == "abc-1")
    let longest = String(repeating: "a", count: 128)
    #expect(try id(longest) == longest)
    for unfit in ["", longest + "a", "a b", "a\u{7F}", "é"] {
      let given = try #require(try id(unfit))
      #expect(given.hasPrefix("r") && given != unfit)
    }
  }

  @Test("each request is logged with its status, and reads that went well only in detail")
  func accessLog() throws {
    let live = try LiveServer()
    func line(_ method: String, _ target: String) throws -> LogLines.Line? {
      let id = "\(method)-\(live.log.lines.withLock { $0.count })"
      _ = try live.ask(
        "\(method) \(target) HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: \(id)\r\n\r\n")
      return live.log.line(of: id)
    }
    let read = try #require(try line("GET", "/v1/devices/vm1?"))
    #expect(read.level == .debug)
    #expect(read.metadata["method"] == "GET" && read.metadata["status"] == "200")
    #expect(read.metadata["path"] == "/v1/devices/vm1")
    #expect(read.metadata["ms"].flatMap { Int("\($0)") } != nil)
    let missing = try #require(try line("GET", "/v1/devices/\u{1B}[2J"))
    #expect(missing.level == .info && missing.metadata["status"] == "404")
    #expect(missing.metadata["path"] == "/v1/devices/%1B[2J")
    let removed = try #require(try line("DELETE", "/v1/exports/vm1"))
    #expect(removed.level == .info && removed.metadata["status"] == "204")
  }
}
