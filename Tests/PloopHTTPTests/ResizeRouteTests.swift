import PloopIO
import PloopJSON
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("A request for a larger disk")
struct ResizeRouteTests {
  let service: FakeService

  init() throws { service = try FakeService() }

  private func send(
    _ body: String, _ query: String = "", _ headers: [(String, String)] = []
  ) async -> HTTPReply {
    let request = HTTPRequest(
      method: "PATCH", target: "/v1/devices/vm1\(query)".utf8,
      headers: [("Host", "localhost"), ("Content-Type", "application/json")] + headers,
      body: Array(body.utf8))
    return await Router(service).answer(request, requestID: "r1")
  }

  @Test("is answered with the device when its job has succeeded, or when there was nothing to do")
  func done() async {
    for size in [10 << 30, 21_474_836_480] {
      let reply = await send("{\"size\":\(size)}", "", [("If-Match", "\"41\"")])
      #expect(reply.status == 200 && reply.member("id") == .string("vm1"))
      #expect(reply.header("ETag") == "\"41\"")
    }
    #expect(service.state.withLock { $0.ifRevisions } == [41, 41])
  }

  @Test("is answered with the job that is not over, and with why one has failed")
  func job() async {
    service.state.withLock { $0.jobs["resize-7"] = Sample.job("resize", of: "vm1", id: "01KAR9") }
    service.state.withLock { $0.jobs["01KAR9"] = $0.jobs["resize-7"] }
    let running = await send("{\"size\":7}", "", [("Prefer", "wait=0")])
    #expect(running.status == 202 && running.header("Location") == "/v1/jobs/01KAR9")
    #expect(running.member("state") == .string("running"))
    let failed = await send("{\"size\":1073741824}")
    #expect(failed.status == 500 && failed.member("code") == .string("io-error"))
  }

  @Test("stands alone, and names a whole number")
  func alone() async {
    for body in [
      #"{"size":1,"labels":{}}"#, #"{"size":1,"unknown":2}"#, #"{"size":null}"#, #"{"size":"1G"}"#,
      #"{"size":-1}"#, #"{"size":1.5}"#,
    ] {
      let reply = await send(body)
      #expect(reply.status == 400 && reply.member("code") == .string("invalid-value"), "\(body)")
    }
    #expect(service.state.withLock { $0.changes.isEmpty && $0.ifRevisions.isEmpty })
  }

  @Test("only tells what it takes, if that is wanted")
  func dryRun() async {
    let plan = await send(#"{"size":21474836480}"#, "?dry_run=true")
    #expect(plan.status == 200 && plan.member("dry_run") == .bool(true))
    #expect(await send(#"{"autostart":true}"#, "?dry_run=true").status == 422)
    #expect(service.state.withLock { $0.changes.isEmpty })
  }
}
