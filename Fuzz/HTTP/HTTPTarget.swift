internal import Logging
internal import PloopControl
internal import PloopHTTP
internal import PloopIO
internal import PloopJSON

/// Requests to the API. Input: who asks; then the request as people write it down: method and target, headers, an
/// empty line, the body.
///
/// The service has not begun, so it takes nothing, and nothing that an input asks for is done.
struct HTTPTarget {
  private let router: FuzzRouter

  init() throws { router = try FuzzRouter() }

  func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let isLocal = head.byte() & 1 == 0
    let request = Self.request(head.body, isLocal: isLocal)
    try checkRange(request)
    let reply = try router.answer(request)
    try promise((200...599).contains(reply.status), "a status of \(reply.status)")
    try promise(reply.status != 500, "a fault of the service's own: \(reply.body as Any)")
    for (name, value) in reply.headers {
      let isPlain = (name + value).utf8.allSatisfy { $0 != 13 && $0 != 10 && $0 != 0 }
      try promise(isPlain, "\(name) ends its line: \(value)")
    }
    guard let body = reply.body else { return }
    let limits = JSONParser.Limits(depth: 64, items: 1 << 20)
    let again = try JSONParser.parse(body.encoded, limits)
    try promise(again.encoded == body.encoded, "a body is read otherwise than it was written")
    if reply.isProblem {
      try promise(
        body.member("status") == .integer(Int64(reply.status)), "a problem of another status")
    }
  }

  /// What a request asks for of a whole lies in that, and is something.
  private func checkRange(_ request: HTTPRequest) throws {
    guard case .success(let range?) = Result(catching: { try ByteRange(headerOf: request) }) else {
      return
    }
    for size in [0, 1, 4096, UInt64.max] {
      guard let bytes = range.bytes(of: size) else { continue }
      try promise(!bytes.isEmpty && bytes.upperBound <= size, "\(range) of \(size) is \(bytes)")
    }
  }

  private static func request(_ text: [UInt8], isLocal: Bool) -> HTTPRequest {
    var rest = text[...]
    func line() -> ArraySlice<UInt8> {
      let line = rest.prefix { $0 != 10 }
      rest = rest.dropFirst(line.count + 1)
      return line
    }
    let first = line()
    let method = first.prefix { $0 != 0x20 }
    let target = first.dropFirst(method.count + 1)
    var headers: [(name: String, value: String)] = []
    while true {
      let header = line()
      if header.isEmpty { break }
      let name = header.prefix { $0 != 0x3A }
      headers.append(
        (
          String(decoding: name, as: UTF8.self),
          String(decoding: header.dropFirst(name.count + 1).drop { $0 == 0x20 }, as: UTF8.self)
        ))
    }
    let peer =
      isLocal
      ? SocketPeer.unix(process: 1, user: 0, groups: [0])
      : SocketPeer.tcp(host: "192.0.2.7", port: "4711")
    return HTTPRequest(
      from: peer, method: String(decoding: method, as: UTF8.self), target: target,
      headers: headers, body: Array(rest))
  }
}

/// The routes over a service of no disks.
private final class FuzzRouter: Sendable {
  private let place: FuzzFolder
  private let service: Service
  private let router: Router
  /// As the service has them: who waits here may be in the way of Swift's own threads.
  private let executor: ThreadExecutor

  init() throws {
    executor = try ThreadExecutor(name: "fuzz")
    place = try FuzzFolder()
    let log = Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() }
    service = try Service(
      roots: Roots([]), store: Store(path: place.folder.path), engine: IOEngine(threadLimit: 2),
      log: log, configuration: Service.Configuration())
    router = Router(
      service,
      access: AccessControl(
        PeerRules(ownUser: 0, admins: nil, readers: nil), tcp: .token, book: nil),
      longestPatience: 0)
  }

  deinit { _ = service.stop(until: .after(seconds: 20)) }

  func answer(_ request: HTTPRequest) throws -> HTTPReply {
    let answer = Monitor<HTTPReply?>(nil)
    let router = router
    Task.detached(executorPreference: executor) {
      let reply = await router.answer(request, requestID: "r")
      answer.update { $0 = reply }
    }
    guard let reply = answer.wait(until: .after(seconds: 120), { $0 }) else {
      throw BrokenPromise(description: "no answer in two minutes")
    }
    return reply
  }
}
