import PloopIO
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("Requests that wait for a busy device")
struct PatienceTests {
  private let executor: ThreadExecutor
  private let service: FakeService

  init() throws {
    executor = try ThreadExecutor(name: "answers")
    service = try FakeService(watchers: 1)
    hold(by: "01KAR7")
  }

  /// The device is held, by a job or by something without a name.
  private func hold(by job: String?) {
    service.state.withLock {
      $0.failure = ServiceError(
        .deviceBusy, "vm1 is held", holder: job.map { .init(kind: "job", id: $0) })
    }
  }

  private func release(_ topic: Topic) {
    service.state.withLock { $0.failure = nil }
    service.waiting.changed([topic])
  }

  private func begin(
    _ row: (method: String, target: String, status: Int), wait: String? = "wait=3600"
  ) -> Task<HTTPReply, Never> {
    let headers = [("Host", "localhost")] + (wait.map { [("Prefer", $0)] } ?? [])
    let typed = headers + (row.method == "PATCH" ? [("Content-Type", "application/json")] : [])
    let body = row.method == "PATCH" ? Array("{}".utf8) : []
    let request = HTTPRequest(
      method: row.method, target: row.target.utf8, headers: typed, body: body)
    return Task(executorPreference: executor) { [service] in
      await Router(service, longestPatience: 3600).answer(request, requestID: "r1")
    }
  }

  private func expectWaiting() async throws {
    let deadline = Deadline.after(seconds: 3600)
    while service.waiting.count != 1 {
      guard !deadline.hasPassed else { throw Tool.Failure(description: "nobody waits") }
      // The request may need this thread.
      await Task.yield()
    }
  }

  static let rows: [(method: String, target: String, status: Int)] = [
    ("PATCH", "/v1/devices/vm1", 200), ("DELETE", "/v1/devices/vm1", 204),
    ("DELETE", "/v1/exports/vm1", 204),
  ]

  @Test("they are answered when the job that has it is over, and not before", arguments: rows)
  func waits(_ row: (method: String, target: String, status: Int)) async throws {
    let reply = begin(row)
    try await expectWaiting()
    // Another job's end is none of theirs; and what wakes them may not be the end.
    service.waiting.changed([.job("01OTHER"), .service])
    #expect(service.waiting.count == 1)
    service.waiting.changed([.job("01KAR7")])
    try await expectWaiting()
    release(.job("01KAR7"))
    #expect(await reply.value.status == row.status)
  }

  @Test("what has no name is waited for as well", arguments: rows)
  func nameless(_ row: (method: String, target: String, status: Int)) async throws {
    hold(by: nil)
    let reply = begin(row)
    try await expectWaiting()
    release(.service)
    #expect(await reply.value.status == row.status)
  }

  @Test(
    "without a wish to wait, or after it, the answer is 409 with the holder",
    arguments: [nil, "wait=0", "wait=x", "return=minimal"])
  func atOnce(_ wait: String?) async throws {
    for row in PatienceTests.rows {
      let reply = await begin(row, wait: wait).value
      #expect(reply.status == 409)
      #expect("\(reply)".contains("01KAR7"))
    }
    #expect(await begin(PatienceTests.rows[0], wait: "wait=1").value.status == 409)
  }

  @Test("another refusal is not waited through")
  func otherRefusal() async throws {
    service.state.withLock { $0.failure = ServiceError(.deviceInUse, "a client is connected") }
    for row in PatienceTests.rows { #expect(await begin(row).value.status == 409) }
  }

  @Test("a service that is being stopped sends them away, and lets nobody wait any more")
  func stopping() async throws {
    let reply = begin(PatienceTests.rows[1])
    try await expectWaiting()
    service.waiting.close()
    #expect(await reply.value.status == 503)
    let late = await begin(PatienceTests.rows[0]).value
    #expect(late.status == 503)
    #expect("\(late)".contains("shutting-down"))
  }

  @Test("where as many wait as may, the answer is the refusal itself")
  func full() async throws {
    let first = begin(PatienceTests.rows[0])
    try await expectWaiting()
    #expect(await begin(PatienceTests.rows[1]).value.status == 409)
    release(.job("01KAR7"))
    #expect(await first.value.status == 200)
  }
}
