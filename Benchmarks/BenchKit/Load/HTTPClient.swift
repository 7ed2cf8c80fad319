internal import Glibc
internal import PloopIO

/// A client of the API on its Unix socket, with one connection that is kept.
final class HTTPClient {
  private let socket: OwnedDescriptor
  private var buffer: [UInt8] = []

  /// - Parameter path: of the socket.
  init(_ path: String) throws(BenchFailure) {
    socket = try NBDAddress(door: .unix(path), export: "").connect()
    var patience = timeval(tv_sec: 60, tv_usec: 0)
    setsockopt(
      socket.number, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  }

  /// - Returns: false when the server has closed.
  @discardableResult
  func send(_ text: String) -> Bool {
    let bytes = Array(text.utf8)
    return Glibc.send(socket.number, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count
  }

  /// Asks, and takes the whole reply.
  ///
  /// - Returns: its body.
  @discardableResult
  func get(_ path: String) throws(BenchFailure) -> [UInt8] {
    send("GET \(path) HTTP/1.1\r\nHost: localhost\r\n\r\n")
    buffer.removeAll(keepingCapacity: true)
    var head: Int?
    while head == nil {
      try receive()
      head = buffer.indices.dropLast(3).first { buffer[$0...].starts(with: [13, 10, 13, 10]) }
        .map { $0 + 4 }
    }
    guard let head else { return [] }
    let lines = String(decoding: buffer[..<head], as: UTF8.self).split(separator: "\r\n")
    let length = lines.first { $0.lowercased().hasPrefix("content-length:") }
      .flatMap { Int($0.dropFirst("content-length:".count).drop { $0 == " " }) }
    guard lines.first?.contains(" 200 ") == true, let length else {
      throw BenchFailure("GET \(path): \(lines.first ?? "nothing")")
    }
    while buffer.count < head + length { try receive() }
    return Array(buffer[head...])
  }

  private func receive() throws(BenchFailure) {
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    let count = recv(socket.number, &chunk, chunk.count, 0)
    guard count > 0 else { throw BenchFailure("the service has closed a connection") }
    buffer += chunk[..<count]
  }

  /// Asks for the same again and again.
  ///
  /// - Returns: how long the replies took.
  static func latencies(
    of path: String, at socket: String, seconds: Double
  ) throws(BenchFailure) -> Histogram {
    let client = try HTTPClient(socket)
    try client.get(path)
    var histogram = Histogram()
    let end = monotonicNanoseconds() + UInt64(seconds * 1e9)
    while histogram.count < 20 || monotonicNanoseconds() < end {
      let start = monotonicNanoseconds()
      try client.get(path)
      histogram.record(monotonicNanoseconds() - start)
    }
    return histogram
  }
}

/// Clients that send their requests byte by byte, and others that listen to events and do not read.
final class SlowPeers: Sendable {
  private let isOver = Locked(false)
  private let thread: Thread

  /// - Parameters:
  ///   - socket: the path of the API's.
  ///   - dripping: how many never come to the end of their header; who is sent away comes again.
  ///   - stalled: how many take no events.
  init(_ socket: String, dripping: Int, stalled: Int) throws {
    let isOver = isOver
    let failure = Locked<BenchFailure?>(nil)
    let isThere = Monitor(false)
    thread = try Thread(name: "bench-slow") {
      do throws(BenchFailure) {
        var streams: [HTTPClient] = []
        for _ in 0..<stalled {
          let client = try HTTPClient(socket)
          client.send(
            "GET /v1/events?after=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
          )
          streams.append(client)
        }
        var clients: [HTTPClient] = []
        for _ in 0..<dripping { clients.append(try SlowPeers.begin(socket)) }
        isThere.update { $0 = true }
        var turn = 0
        while !isOver.withLock({ $0 }) {
          for _ in 0..<min(20, clients.count) {
            turn = (turn + 1) % clients.count
            if !clients[turn].send("x") { clients[turn] = try SlowPeers.begin(socket) }
          }
          poll(nil, 0, 100)
        }
        withExtendedLifetime(streams) {}
      } catch {
        failure.withLock { $0 = error }
        isThere.update { $0 = true }
      }
    }
    _ = isThere.wait(until: .after(seconds: 60)) { $0 ? true : nil }
    if let failure = failure.withLock({ $0 }) { throw failure }
  }

  private static func begin(_ socket: String) throws(BenchFailure) -> HTTPClient {
    let client = try HTTPClient(socket)
    client.send("GET /v1 HTTP/1.1\r\nHost: localhost\r\nX-Drip: ")
    return client
  }

  func stop() {
    isOver.withLock { $0 = true }
    thread.join()
  }
}
