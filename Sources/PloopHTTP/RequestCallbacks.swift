internal import CMicrohttpd
internal import Glibc
internal import PloopIO
internal import PloopJSON
internal import PloopTLS

// What libmicrohttpd calls, always on the thread of its daemon that the connection belongs to.
//
// It is a C library: what it keeps for us comes back as raw pointers, and here, nowhere else but where a call hands
// names or headers to us while it lasts (ServerIdentity.swift), they become objects. The server is passed unretained, since it stops its daemons before it goes; an
// exchange is retained from the first callback of its request to the last one, and what is known of a connection from
// its first to its last.

func requestCallbacks(of server: HTTPServer) -> cmicrohttpd_callbacks {
  cmicrohttpd_callbacks(
    context: Unmanaged.passUnretained(server).toOpaque(), target: beginRequest,
    request: receiveRequest, completed: completeRequest, connection: noteConnection)
}

/// One request on its way through the callbacks.
///
/// Unchecked: only the connection's thread changes the request, and it no longer does once others see it;
/// the connection may be resumed by any thread, which is what the lock around the reply is for.
final class Exchange: @unchecked Sendable {
  let number: UInt64
  let began = monotonicNanoseconds()
  /// Changed by the connection's thread only, and not any more once it is whole.
  fileprivate(set) var request: HTTPRequest
  fileprivate(set) var requestID: String
  fileprivate var hasHead = false
  /// Whether the server has it among those in flight; changed by the connection's thread only.
  var isInFlight = false
  /// Nil of one without a socket.
  let client: TimedConnection?
  private let connection: OpaquePointer
  private let state = Locked(State())

  private struct State {
    var isSuspended = false
    var reply: HTTPReply?
    /// What makes the reply, and goes on with it if it is a stream.
    var task: Task<Void, Never>?
  }

  fileprivate init(
    _ number: UInt64, _ request: HTTPRequest, of client: TimedConnection?,
    on connection: OpaquePointer
  ) {
    self.number = number
    self.request = request
    self.client = client
    self.connection = connection
    requestID = "r\(number)"
  }

  var reply: HTTPReply? { state.withLock { $0.reply } }

  /// - Returns: false when there is a reply already, which can be sent at once: the server may have
  ///   been told to stop a moment ago.
  func suspend() -> Bool {
    state.withLock { state in
      guard state.reply == nil else { return false }
      state.isSuspended = true
      MHD_suspend_connection(connection)
      return true
    }
  }

  /// The first reply counts. The lock is held meanwhile: whoever comes second finds the connection
  /// resumed.
  ///
  /// - Returns: whether it was the first.
  @discardableResult
  func finish(with reply: HTTPReply) -> Bool {
    state.withLock { state in
      guard state.reply == nil else { return false }
      state.reply = reply
      if state.isSuspended { MHD_resume_connection(connection) }
      return true
    }
  }

  func isMade(by task: Task<Void, Never>) { state.withLock { $0.task = task } }

  /// Nobody waits for the reply any more: whatever only waits is not to wait longer.
  func abandon() { state.withLock { $0.task }?.cancel() }

  /// The client's own id where it is fit to be logged.
  fileprivate func adoptID() {
    guard let id = request.values(of: "x-request-id").first, (1...128).contains(id.utf8.count),
      id.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
    else { return }
    requestID = id
  }
}

private func server(_ context: UnsafeMutableRawPointer) -> HTTPServer {
  Unmanaged<HTTPServer>.fromOpaque(context).takeUnretainedValue()
}

private func beginRequest(
  context: UnsafeMutableRawPointer?, target: UnsafePointer<CChar>?, connection: OpaquePointer?
) -> UnsafeMutableRawPointer? {
  guard let context, let target, let connection else { return nil }
  let server = server(context)
  let client = cmicrohttpd_slot(connection).map {
    Unmanaged<TimedConnection>.fromOpaque($0).takeUnretainedValue()
  }
  let request = HTTPRequest(
    from: client?.peer ?? .unknown, method: "",
    target: UnsafeRawBufferPointer(start: target, count: strlen(target)))
  let exchange = Exchange(server.nextNumber(), request, of: client, on: connection)
  return Unmanaged.passRetained(exchange).toOpaque()
}

private func receiveRequest(
  context: UnsafeMutableRawPointer?, connection: OpaquePointer?, url: UnsafePointer<CChar>?,
  method: UnsafePointer<CChar>?, version: UnsafePointer<CChar>?,
  upload: UnsafePointer<CChar>?, uploadSize: UnsafeMutablePointer<Int>?,
  slot: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> MHD_Result {
  guard let context, let connection, let method, let uploadSize, let held = slot?.pointee else {
    return MHD_Result.NO
  }
  let server = server(context)
  let exchange = Unmanaged<Exchange>.fromOpaque(held).takeUnretainedValue()
  if !exchange.hasHead {
    exchange.hasHead = true
    exchange.request.method = String(cString: method)
    exchange.request.headers = headers(connection)
    exchange.request.certificate = cmicrohttpd_session(connection).flatMap {
      ClientCertificate(of: $0, to: server.trust)
    }
    exchange.adoptID()
    exchange.client.map(server.clock.headerEnded)
    return beginBody(exchange, server, connection)
  }
  if uploadSize.pointee > 0, let upload {
    receiveBody(exchange, UnsafeRawBufferPointer(start: upload, count: uploadSize.pointee))
    uploadSize.pointee = 0
    return MHD_Result.YES
  }
  if exchange.reply == nil, !server.answerAtOnce(exchange) {
    exchange.client?.isAnswered { exchange.abandon() }
    if server.answer(exchange) { return MHD_Result.YES }
  }
  guard let reply = exchange.reply else { return MHD_Result.NO }
  if server.isClosing { reply.stream?.body.end() }
  return send(server.isClosing ? reply.with("Connection", "close") : reply, on: connection)
}

private func beginBody(
  _ exchange: Exchange, _ server: HTTPServer, _ connection: OpaquePointer
) -> MHD_Result {
  do throws(Problem) {
    guard exchange.client?.isSurplus != true else {
      throw Problem("too-many-connections", "there are as many connections as may be from there")
    }
    try RequestRules.checkHead(exchange.request)
    try RequestRules.checkFraming(exchange.request)
    exchange.request.caller = server.router.identify(exchange.request)
    return MHD_Result.YES
  } catch {
    let reply = server.router.refuse(exchange.request, error, requestID: exchange.requestID)
      .with("Connection", "close")
    exchange.finish(with: reply)
    return send(reply, on: connection)
  }
}

private func receiveBody(_ exchange: Exchange, _ bytes: UnsafeRawBufferPointer) {
  // It is read and dropped: the client hears why once it listens.
  if case .failure? = exchange.request.caller { return }
  guard exchange.request.body.count + bytes.count <= HTTPRequest.bodyLimitBytes else {
    exchange.request.isBodyTooLarge = true
    return
  }
  exchange.request.body += bytes
}

private func completeRequest(
  context: UnsafeMutableRawPointer?, connection: OpaquePointer?,
  slot: UnsafeMutablePointer<UnsafeMutableRawPointer?>?, code: MHD_RequestTerminationCode
) {
  guard let context, let slot, let held = slot.pointee else { return }
  let exchange = Unmanaged<Exchange>.fromOpaque(held).takeRetainedValue()
  slot.pointee = nil
  exchange.client.map(server(context).clock.replyEnded)
  exchange.reply?.stream?.body.gone()
  exchange.abandon()
  server(context).completed(exchange)
}

private func noteConnection(
  context: UnsafeMutableRawPointer?, connection: OpaquePointer?,
  slot: UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
  code: MHD_ConnectionNotificationCode
) {
  guard let context, let connection, let slot else { return }
  let clock = server(context).clock
  if code == .CONNECTION_NOTIFY_STARTED {
    slot.pointee = clock.opened(cmicrohttpd_descriptor(connection)).map {
      Unmanaged.passRetained($0).toOpaque()
    }
  } else if let held = slot.pointee {
    clock.closed(Unmanaged<TimedConnection>.fromOpaque(held).takeRetainedValue())
    slot.pointee = nil
  }
}

private final class Pairs {
  var pairs: [(name: String, value: String)] = []
}

private func headers(_ connection: OpaquePointer) -> [(name: String, value: String)] {
  let pairs = Pairs()
  MHD_get_connection_values(
    connection, .HEADER_KIND,
    { context, _, name, value in
      guard let context, let name else { return MHD_Result.YES }
      Unmanaged<Pairs>.fromOpaque(context).takeUnretainedValue().pairs.append(
        (String(cString: name), value.map { String(cString: $0) } ?? ""))
      return MHD_Result.YES
    }, Unmanaged.passUnretained(pairs).toOpaque())
  return pairs.pairs
}

private func send(_ reply: HTTPReply, on connection: OpaquePointer) -> MHD_Result {
  let response = reply.stream.map { stream($0, on: connection) } ?? buffer(reply)
  guard let response else { return MHD_Result.NO }
  defer { MHD_destroy_response(response) }
  if let type = reply.contentType { MHD_add_response_header(response, "Content-Type", type) }
  for (name, value) in reply.headers { MHD_add_response_header(response, name, value) }
  return MHD_queue_response(connection, UInt32(clamping: reply.status), response)
}

private func buffer(_ reply: HTTPReply) -> OpaquePointer? {
  if let shared = reply.sharedBytes { return response(of: shared) }
  let newline = UInt8(ascii: "\n")
  var bytes = reply.bytes ?? []
  for value in reply.lines ?? reply.body.map({ [$0] }) ?? [] {
    value.write(to: &bytes)
    bytes.append(newline)
  }
  return bytes.withUnsafeBytes {
    // What is copied at once is not changed.
    MHD_create_response_from_buffer(
      $0.count, UnsafeMutableRawPointer(mutating: $0.baseAddress), .RESPMEM_MUST_COPY)
  }
}

/// Retained until the library frees the response.
private func response(of bytes: AlignedBuffer) -> OpaquePointer? {
  let held = Unmanaged.passRetained(bytes)
  let response = MHD_create_response_from_buffer_with_free_callback_cls(
    bytes.count, bytes.borrowed.start,
    { context in
      if let context { Unmanaged<AlignedBuffer>.fromOpaque(context).release() }
    }, held.toOpaque())
  if response == nil { held.release() }
  return response
}

/// What the library keeps of a stream: retained until it frees the response.
private final class Source {
  let body: StreamBody
  let connection: OpaquePointer

  init(_ body: StreamBody, _ connection: OpaquePointer) {
    self.body = body
    self.connection = connection
  }
}

/// What the library takes of a stream of data at a time, and keeps memory for.
private let dataBlockBytes = 64 << 10

private func stream(_ stream: ReplyStream, on connection: OpaquePointer) -> OpaquePointer? {
  let source = Unmanaged.passRetained(Source(stream.body, connection))
  // MHD_SIZE_UNKNOWN: in chunks
  let (size, block): (UInt64, Int) =
    if case .bytes(let count) = stream.kind { (count, dataBlockBytes) } else { (UInt64.max, 4096) }
  let response = MHD_create_response_from_callback(
    size, block,
    { context, _, buffer, room in
      guard let context, let buffer else { return -2 }  // MHD_CONTENT_READER_END_WITH_ERROR
      let source = Unmanaged<Source>.fromOpaque(context).takeUnretainedValue()
      switch source.body.take(atMost: room, for: source.connection) {
      case .bytes(let bytes):
        UnsafeMutableRawBufferPointer(start: buffer, count: room).copyBytes(from: bytes)
        return bytes.count
      case .later: return 0
      case .end: return -1  // MHD_CONTENT_READER_END_OF_STREAM
      case .broken: return -2
      }
    }, source.toOpaque(),
    { context in
      if let context { Unmanaged<Source>.fromOpaque(context).release() }
    })
  guard let response else {
    source.release()
    return nil
  }
  if stream.isHeadOnly, stream.kind == .events { cmicrohttpd_head_only(response) }
  return response
}
