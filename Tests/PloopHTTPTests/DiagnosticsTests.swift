import PloopJSON
import Testing

@testable import PloopHTTP

@Suite("Diagnostics")
struct DiagnosticsTests {
  @Test(
    "what lets somebody in is taken out",
    arguments: [
      ("nothing here", "nothing here"),
      ("Bearer plp_Ab3-_9x, and plp_", "Bearer plp_…, and plp_…"),
      ("nbds://me:word@host:10809/vol", "nbds://…@host:10809/vol"),
      ("a://u@h/x b://h/y@z c://k:p@q", "a://…@h/x b://h/y@z c://…@q"),
      ("nbd+unix:///vm1?socket=/run/a@b", "nbd+unix:///vm1?socket=/run/a@b"),
      ("://plp_x@h", "://…@h"),
    ])
  func secrets(text: String, wanted: String) {
    #expect(Secrets.removed(from: text) == wanted)
  }

  @Test("they are taken out of everything that is told, settings and log included")
  func everywhere() async throws {
    let source = DiagnosticsSource(settings: [("http-host", "x://a:b@c")]) {
      ["token=plp_secret", "second"]
    }
    let request = HTTPRequest(
      method: "GET", target: "/v1/diagnostics".utf8, headers: [("Host", "localhost")])
    let reply = try await Router(FakeService(), diagnostics: source).answer(
      request, requestID: "r1")
    #expect(reply.status == 200)
    #expect(reply.body?.member("log") == .array([.string("token=plp_…"), .string("second")]))
    #expect(reply.body?.member("settings")?.member("http-host") == .string("x://…@c"))
  }
}
