import PloopIO
import PloopJSON
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("Who waits while his token is revoked")
struct RevokedCallerTests {
  private let folder: TemporaryFolder
  private let file: TokenFile
  private let service: FakeService
  private let executor: ThreadExecutor
  private let secret = TokenSecret.make()

  init() throws {
    folder = try TemporaryFolder()
    file = TokenFile(in: folder.path)
    service = try FakeService()
    executor = try ThreadExecutor(name: "answers")
    try set(Grant([.operate]))
  }

  private func set(_ grant: Grant?) throws {
    let token = grant.map {
      Token(name: "t", digest: secret.digest, grant: $0, networks: [], expiresAt: nil, createdAt: 1)
    }
    try file.change { $0 = token.map { [$0] } ?? [] }
  }

  private var access: AccessControl {
    AccessControl(
      PeerRules(ownUser: 0, admins: nil, readers: nil), tcp: .token, book: TokenBook(file) { _ in })
  }

  private let watchers = EventWatchers(reviewMilliseconds: 20)

  private func begin(_ target: String) -> Task<HTTPReply, Never> {
    var request = HTTPRequest(
      from: .tcp(host: "127.0.0.1", port: "4000"), method: "GET", target: target.utf8,
      headers: [("Host", "localhost"), ("Authorization", "Bearer \(secret.text)")])
    let router = Router(service, access: access, watchers: watchers)
    request.caller = router.identify(request)
    return Task(executorPreference: executor) { [request] in
      await router.answer(request, requestID: "r1")
    }
  }

  private func awaitWaiting() throws {
    let deadline = Deadline.after(seconds: 600)
    while service.waiting.count == 0 {
      guard !deadline.hasPassed else { throw Tool.Failure(description: "nobody waits") }
      try Tool.shell("true")
    }
  }

  @Test(
    "is told so, though nothing has changed",
    arguments: ["/v1/devices/vm1?after_revision=41&wait=60", "/v1/events?after=9&wait=60"])
  func poll(target: String) async throws {
    let waiting = begin(target)
    try awaitWaiting()
    try set(nil)
    let reply = await waiting.value
    #expect(reply.status == 401 && reply.member("code") == .string("unauthorized"), "\(target)")
  }

  @Test("is told so too where he may do less than before")
  func lesser() async throws {
    let waiting = begin("/v1/devices/vm1?after_revision=41&wait=60")
    try awaitWaiting()
    try set(Grant([.read]))
    #expect(await waiting.value.status == 401)
  }

  @Test("goes on waiting while his token is as it was")
  func unchanged() async throws {
    let waiting = begin("/v1/devices/vm1?after_revision=41&wait=60")
    try awaitWaiting()
    try set(Grant([.operate]))
    service.state.withLock { $0.devices["vm1"]?.revision = 42 }
    service.waiting.changed([.device("vm1")])
    #expect(await waiting.value.status == 200)
  }

  @Test("has his stream of events ended")
  func stream() throws {
    let live = try LiveServer(service, watchers: watchers, access: access)
    let client = try live.client(.tcp, seconds: 600)
    #expect(client.listen("", "Authorization: Bearer \(secret.text)\r\n")?.status == 200)
    #expect(client.block()?.contains("retry") == true)
    try set(nil)
    while client.block() != nil {}
    let deadline = Deadline.after(seconds: 600)
    while watchers.count > 0, !deadline.hasPassed { try Tool.shell("true") }
    #expect(watchers.count == 0)
  }
}
