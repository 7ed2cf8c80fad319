import Foundation
import PloopControl
import PloopIO
import PloopJSON
import TestSupport
import Testing

@testable import PloopHTTP

@Suite("The contract as it is served")
struct ContractPageTests {
  private let router: Router

  init() throws { router = Router(try FakeService()) }

  private func get(
    _ target: String, _ method: String = "GET", _ headers: [(name: String, value: String)] = [],
    from peer: SocketPeer = .root
  ) async -> HTTPReply {
    var request = HTTPRequest(
      from: peer, method: method, target: target.utf8, headers: [("Host", "localhost")] + headers)
    request.caller = router.identify(request)
    return await router.answer(request, requestID: "r1")
  }

  private func text(_ target: String) async -> String {
    String(decoding: await get(target).bytes ?? [], as: UTF8.self)
  }

  @Test("openapi.json is openapi.yaml, and who has it already is told so")
  func contract() async throws {
    let reply = await get("/openapi.json")
    #expect(reply.status == 200 && reply.contentType == "application/json")
    let folder = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let yaml = try Tool.shell("cat '/\(folder)/openapi.yaml'").output
    let isSame = try JSONParser.parse(reply.bytes ?? []) == JSON(yaml: yaml)
    #expect(isSame)
    let tag = try #require(reply.header("ETag"))
    let again = await get("/openapi.json", "GET", [("If-None-Match", tag)])
    #expect(again.status == 304 && again.bytes == nil && again.header("ETag") == tag)
    #expect(await get("/openapi.json", "GET", [("If-None-Match", "\"1\"")]).status == 200)
  }

  @Test("nobody has to say who he is", arguments: ["/openapi.json", "/docs", "/problems/internal"])
  func open(target: String) async {
    let stranger = SocketPeer.unix(process: 1, user: 4_000_000, groups: [])
    #expect(await get(target, from: stranger).status == 200)
    #expect(await get("/v1", from: stranger).status == 403)
  }

  @Test("the reference has every operation with a line for curl, and its problems")
  func reference() async throws {
    let sections = await text("/docs").components(separatedBy: "<h3 id=\"").dropFirst()
    for operation in try Contract.own.get().operations {
      let section = try #require(sections.first { $0.hasPrefix("\(operation.id)\"") })
      let command = section.components(separatedBy: "<pre>").last?.prefix { $0 != "<" } ?? ""
      let isWhole = command.hasPrefix("curl ") && !command.replacing("-d ", with: "").contains("/{")
      #expect(isWhole, "\(operation.id): \(command.prefix(300))")
      let missing = operation.problems.filter { !section.contains("/problems/\($0)\"") }
      #expect(missing == [], "\(operation.id)")
    }
  }

  @Test("every problem has a page that names cause and remedy, and where it comes from")
  func problems() async {
    let list = await text("/problems")
    for entry in ProblemCatalogue.all {
      let page = await text("/problems/\(entry.slug)")
      let wanted = [
        WebPage.line(entry.cause), WebPage.line(entry.remedy), "status \(entry.status)",
      ]
      let isThere = wanted.allSatisfy(page.contains)
      let isListed = list.contains("<a href=\"/problems/\(entry.slug)\">")
      #expect(isThere && isListed, "\(entry.slug)")
    }
    let isLinked = await text("/problems/device-busy").contains("/docs#changeDevice\"")
    #expect(isLinked)
    let unknown = await get("/problems/%3Cb%3E")
    #expect(unknown.status == 404 && unknown.isProblem)
  }

  @Test("pages ask nothing of anybody else, and every link leads somewhere")
  func links() async {
    var targets: Set<String> = []
    for path in ["/docs", "/problems", "/problems/device-busy", "/problems/wrong-host"] {
      let reply = await get(path)
      let page = String(decoding: reply.bytes ?? [], as: UTF8.self)
      #expect(reply.header("Content-Security-Policy")?.hasPrefix("default-src 'none'") == true)
      for word in ["<script", " src=", " style=\"", "@import", "url("] {
        let isThere = page.contains(word)
        #expect(!isThere, "\(path): \(word)")
      }
      for part in page.components(separatedBy: "href=\"").dropFirst() {
        targets.insert(String(part.prefix { $0 != "\"" }))
      }
      for tag in ["table", "ul", "p", "h3", "code", "nav", "pre"] {
        let opened = ["<\(tag)>", "<\(tag) "].map { page.components(separatedBy: $0).count - 1 }
        let closed = page.components(separatedBy: "</\(tag)>").count - 1
        #expect(opened.reduce(0, +) == closed, "\(path) \(tag)")
      }
    }
    let reference = await text("/docs")
    for target in targets {
      let parts = target.split(separator: "#", omittingEmptySubsequences: false)
      let page = parts.first.map(String.init) ?? ""
      if !page.isEmpty { #expect(await get(page).status == 200, "\(target)") }
      let hasPlace = parts.count < 2 || reference.contains(" id=\"\(parts[1])\"")
      #expect(hasPlace, "\(target)")
    }
  }

  @Test("text of the contract cannot become markup")
  func escaping() {
    let line = WebPage.line("a <b> `c < \"d\"` & e")
    #expect(line == "a &lt;b&gt; <code>c &lt; &quot;d&quot;</code> &amp; e")
    #expect(WebPage.prose("one\n\n- a\n- b") == "<p>one</p>\n<ul><li>a</li>\n<li>b</li></ul>")
  }

  @Test("what an operation can answer has a status that it has, and no status is without a problem")
  func statuses() throws {
    for operation in try Contract.own.get().operations {
      let having = Set(operation.problems.map { String(ProblemCatalogue.entry($0).status) })
      let statuses = operation.responses.filter {
        $0.value.member("content")?.member("application/problem+json") != nil
      }.map(\.status)
      #expect(having.subtracting(statuses) == [], "\(operation.id)")
      #expect(Set(statuses).subtracting(having) == [], "\(operation.id)")
      for slug in operation.problems {
        #expect(ProblemCatalogue.entries[slug] != nil, "\(operation.id): \(slug)")
      }
    }
  }
}
