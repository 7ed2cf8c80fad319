internal import CMicrohttpd
internal import Glibc
package import PloopIO

/// Everything that libmicrohttpd calls. It collects a request, suspends the connection, lets the
/// router answer in a task, and resumes the connection with the reply.
package final class HTTPServer: @unchecked Sendable {
  fileprivate static let bodyLimit = 1 << 20
  private static let connectionLimit: UInt32 = 512
  private static let idleSeconds: UInt32 = 65

  fileprivate let router: Router
  fileprivate let inFlight = Monitor(0)
  private var daemons: [(daemon: OpaquePointer, socket: ListeningSocket)] = []
  fileprivate let nextID = Locked<UInt64>(0)

  package init(_ router: Router) { self.router = router }

  package func listen(on socket: ListeningSocket) throws(IOError) {
    // The daemon closes what it is given; the socket keeps its own descriptor.
    let copy = dup(socket.descriptorNumber)
    guard copy >= 0 else { throw .last("dup", socket.address) }
    guard
      let daemon = cmicrohttpd_start(
        copy, receiveRequest, requestCompleted, Unmanaged.passUnretained(self).toOpaque(),
        HTTPServer.connectionLimit, HTTPServer.idleSeconds)
    else {
      close(copy)
      throw IOError("MHD_start_daemon", path: socket.address, code: EIO)
    }
    daemons.append((daemon, socket))
  }

  /// Takes no more clients, lets requests in flight be answered, and ends every connection.
  package func stop(until deadline: Deadline) {
    for (daemon, _) in daemons {
      let listening = MHD_quiesce_daemon(daemon)
      if listening >= 0 { close(listening) }
    }
    _ = inFlight.wait(until: deadline) { $0 == 0 ? true : nil }
    for (daemon, socket) in daemons {
      MHD_stop_daemon(daemon)
      socket.removeFile()
    }
    daemons = []
  }
}

/// One request on its way through the callbacks.
private final class Exchange: @unchecked Sendable {
  var request: HTTPRequest
  var isComplete = false
  let reply = Locked<HTTPReply?>(nil)

  init(_ request: HTTPRequest) { self.request = request }
}

private func receiveRequest(
  context: UnsafeMutableRawPointer?, connection: OpaquePointer?, url: UnsafePointer<CChar>?,
  method: UnsafePointer<CChar>?, version: UnsafePointer<CChar>?,
  upload: UnsafePointer<CChar>?, uploadSize: UnsafeMutablePointer<Int>?,
  slot: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> MHD_Result {
  guard let context, let connection, let url, let method, let uploadSize, let slot else {
    return MHD_Result.NO
  }
  let server = Unmanaged<HTTPServer>.fromOpaque(context).takeUnretainedValue()
  guard let held = slot.pointee else {
    let exchange = Exchange(head(connection, url: url, method: method))
    slot.pointee = Unmanaged.passRetained(exchange).toOpaque()
    return MHD_Result.YES
  }
  let exchange = Unmanaged<Exchange>.fromOpaque(held).takeUnretainedValue()
  if uploadSize.pointee > 0, let upload {
    if exchange.request.body.count + uploadSize.pointee > HTTPServer.bodyLimit {
      exchange.request.isBodyTooLarge = true
    } else {
      let bytes = UnsafeRawBufferPointer(start: upload, count: uploadSize.pointee)
      exchange.request.body += [UInt8](bytes)
    }
    uploadSize.pointee = 0
    return MHD_Result.YES
  }
  if let reply = exchange.reply.withLock({ $0 }) {
    return send(reply, on: connection)
  }
  guard !exchange.isComplete else { return MHD_Result.YES }
  exchange.isComplete = true
  server.answer(exchange, on: connection)
  return MHD_Result.YES
}

extension HTTPServer {
  fileprivate func answer(_ exchange: Exchange, on connection: OpaquePointer) {
    let id = nextID.withLock { id -> UInt64 in
      id += 1
      return id
    }
    inFlight.withLock { $0 += 1 }
    MHD_suspend_connection(connection)
    let address = UInt(bitPattern: connection)
    let request = exchange.request
    let router = self.router
    Task { [inFlight] in
      let reply = await router.answer(request, requestID: requestID(request, id))
      exchange.reply.withLock { $0 = reply }
      if let connection = OpaquePointer(bitPattern: address) { MHD_resume_connection(connection) }
      inFlight.update { $0 -= 1 }
    }
  }
}

/// The client's own id where it is fit to be logged, else a new one.
private func requestID(_ request: HTTPRequest, _ number: UInt64) -> String {
  if let own = request.values(of: "x-request-id").first, !own.isEmpty, own.utf8.count <= 128,
    own.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
  {
    return own
  }
  return "r\(number)"
}

private func requestCompleted(
  context: UnsafeMutableRawPointer?, connection: OpaquePointer?,
  slot: UnsafeMutablePointer<UnsafeMutableRawPointer?>?, code: MHD_RequestTerminationCode
) {
  guard let slot, let held = slot.pointee else { return }
  Unmanaged<Exchange>.fromOpaque(held).release()
  slot.pointee = nil
}

private func head(
  _ connection: OpaquePointer, url: UnsafePointer<CChar>, method: UnsafePointer<CChar>
) -> HTTPRequest {
  // The library has decoded the path already: an encoded slash can no longer be told from one.
  let path = String(cString: url)
  return HTTPRequest(
    method: String(cString: method), segments: path.split(separator: "/").map(String.init),
    path: path, query: values(connection, .GET_ARGUMENT_KIND),
    headers: values(connection, .HEADER_KIND), body: [])
}

private final class Pairs {
  var pairs: [(name: String, value: String)] = []
}

private func values(
  _ connection: OpaquePointer, _ kind: MHD_ValueKind
) -> [(name: String, value: String)] {
  let pairs = Pairs()
  MHD_get_connection_values(
    connection, kind,
    { context, _, name, value in
      guard let context, let name else { return MHD_Result.YES }
      Unmanaged<Pairs>.fromOpaque(context).takeUnretainedValue().pairs.append(
        (String(cString: name), value.map { String(cString: $0) } ?? ""))
      return MHD_Result.YES
    }, Unmanaged.passUnretained(pairs).toOpaque())
  return pairs.pairs
}

private func send(_ reply: HTTPReply, on connection: OpaquePointer) -> MHD_Result {
  var bytes = reply.body?.encoded ?? []
  if !bytes.isEmpty { bytes.append(UInt8(ascii: "\n")) }
  let response = bytes.withUnsafeMutableBytes {
    MHD_create_response_from_buffer($0.count, $0.baseAddress, .RESPMEM_MUST_COPY)
  }
  guard let response else { return MHD_Result.NO }
  defer { MHD_destroy_response(response) }
  if reply.body != nil {
    MHD_add_response_header(
      response, "Content-Type",
      reply.isProblem ? "application/problem+json" : "application/json")
  }
  for (name, value) in reply.headers { MHD_add_response_header(response, name, value) }
  return MHD_queue_response(connection, UInt32(clamping: reply.status), response)
}
