import PloopIO
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("The files of the dashboard")
struct DashboardTests {
  let service: FakeService

  init() throws { service = try FakeService(devices: []) }

  private static let folder =
    "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    + "/Sources/CAssets/dashboard"

  private static func files() throws -> [String] {
    try Tool.shell("cd '\(folder)' && find . -type f -printf '%P\\n' | sort").output
      .split(separator: "\n").map(String.init)
  }

  private func ask(
    _ target: String, from peer: SocketPeer = .tcp(host: "192.0.2.1", port: "9"),
    _ more: [(name: String, value: String)] = []
  ) async -> HTTPReply {
    let request = HTTPRequest(
      from: peer, method: "GET", target: target.utf8, headers: [("Host", "localhost")] + more)
    let access = AccessControl(
      PeerRules(ownUser: 1000, admins: nil, readers: nil), tcp: .token, book: nil)
    return await Router(service, access: access).answer(request, requestID: "r1")
  }

  @Test("every file of the folder is served as it is, to whoever asks, and typed by its ending")
  func files() async throws {
    let types = [
      "css": "text/css; charset=utf-8", "html": "text/html; charset=utf-8",
      "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml",
    ]
    let files = try Self.files()
    #expect(files.count > 20)
    for file in files {
      let reply = await ask(file == "index.html" ? "/" : "/dashboard/\(file)")
      #expect(reply.status == 200, "\(file) is not in dashboard.c")
      let text = try Tool.shell("cat '\(Self.folder)/\(file)'").output
      #expect(reply.bytes == Array(text.utf8), "\(file)")
      let ending = file.split(separator: ".").last.map(String.init) ?? ""
      #expect(reply.contentType == types[ending], "\(file)")
    }
  }

  @Test("a page can run nothing but its own files, and nobody can frame it")
  func policy() async throws {
    let reply = await ask("/")
    let policy = try #require(reply.header("Content-Security-Policy"))
    for rule in [
      "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
      "frame-ancestors 'none'", "base-uri 'none'",
    ] { #expect(policy.contains(rule)) }
    #expect(!policy.contains("unsafe"))
    #expect(reply.header("X-Content-Type-Options") == "nosniff")
    for file in try Self.files() where file.hasSuffix(".html") || file.hasSuffix(".js") {
      let text = try Tool.shell("cat '\(Self.folder)/\(file)'").output
      #expect(!text.contains("innerHTML"), "\(file)")
      // The name of SVG is no address that anybody asks.
      let asked = text.replacing("http://www.w3.org/2000/svg", with: "")
      #expect(!asked.contains("http://") && !asked.contains("https://"), "\(file)")
    }
  }

  @Test("a link of another site leads to the page, and to nothing else")
  func links() async {
    func follow(_ target: String, _ mode: String, _ kind: String) async -> Int {
      await ask(
        target,
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", kind)]
      ).status
    }
    #expect(await follow("/", "navigate", "document") == 200)
    #expect(await follow("/", "navigate", "iframe") == 403)
    #expect(await follow("/", "no-cors", "image") == 403)
    #expect(await follow("/dashboard/core/main.js", "no-cors", "script") == 403)
    #expect(await follow("/v1", "navigate", "document") == 403)
  }

  @Test("a browser that has a file already is told so, and asks each time")
  func known() async throws {
    let first = await ask("/dashboard/core/main.js")
    #expect(first.headers.filter { $0.name == "Cache-Control" }.map(\.value) == ["no-cache"])
    let tag = try #require(first.header("ETag"))
    let second = await ask("/dashboard/core/main.js", [("If-None-Match", tag)])
    #expect(second.status == 304)
    #expect(second.bytes == nil)
    #expect(await ask("/", [("If-None-Match", tag)]).status == 200)
  }
}
