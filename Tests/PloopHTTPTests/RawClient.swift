import Glibc
import PloopIO
import TestSupport

/// A client that sends bytes as they are, right or wrong.
final class RawClient {
  struct Reply: Equatable {
    var status: Int
    var headers: [(name: String, value: String)]
    var body: String

    func header(_ name: String) -> String? {
      headers.first { $0.name.lowercased() == name.lowercased() }?.value
    }

    static func == (one: Reply, other: Reply) -> Bool {
      one.status == other.status && one.body == other.body
    }
  }

  private let number: Int32
  private var received: [UInt8] = []
  private var isOpen = true
  /// What of a chunked body has come and has not been taken.
  private var streamed: [UInt8] = []
  private(set) var hasStreamEnded = false

  /// - Parameter seconds: after which a reply that does not come is given up.
  init(_ socket: ListeningSocket, seconds: Int = 20) throws {
    number = Glibc.socket(
      socket.isUnix ? AF_UNIX : AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var time = timeval(tv_sec: seconds, tv_usec: 0)
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
      setsockopt(number, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
    }
    let code = socket.isUnix ? connectUnix(socket.address) : connectTCP(socket.port)
    guard code == 0 else { throw Tool.Failure(description: "cannot connect: \(errno)") }
  }

  deinit { close() }

  private func connectUnix(_ path: String) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    return connect(&address, MemoryLayout<sockaddr_un>.size)
  }

  private func connectTCP(_ port: UInt16) -> Int32 {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return connect(&address, MemoryLayout<sockaddr_in>.size)
  }

  private func connect<Address>(_ address: inout Address, _ size: Int) -> Int32 {
    withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(number, $0, socklen_t(size))
      }
    }
  }

  /// - Returns: false when the server has closed or takes nothing.
  @discardableResult
  func send(_ text: String) -> Bool { send(Array(text.utf8)) }

  @discardableResult
  func send(_ bytes: [UInt8]) -> Bool {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.send(
          number, $0.baseAddress?.advanced(by: sent), bytes.count - sent,
          Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { return false }
      sent += count
    }
    return true
  }

  func endSending() { shutdown(number, Int32(SHUT_WR)) }

  func close() {
    guard isOpen else { return }
    isOpen = false
    Glibc.close(number)
  }

  /// Ends with a reset instead of a farewell.
  func reset() {
    var option = linger(l_onoff: 1, l_linger: 0)
    setsockopt(number, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
    close()
  }

  /// - Returns: whether more came.
  private func receive() -> Bool {
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    let count = recv(number, &chunk, chunk.count, 0)
    if count > 0 { received += chunk[..<count] }
    return count > 0
  }

  /// Whether the server has closed, with nothing more to say, in time.
  func isEnded() -> Bool {
    guard received.isEmpty else { return false }
    var byte: UInt8 = 0
    let count = recv(number, &byte, 1, 0)
    return count == 0 || count < 0 && errno == ECONNRESET
  }

  /// The next reply; nil when none comes.
  ///
  /// - Parameter hasBody: false for the reply to HEAD.
  func reply(hasBody: Bool = true) -> Reply? {
    let end = Array("\r\n\r\n".utf8)
    var head = 0
    while true {
      let start = max(0, head - end.count)
      if let found = received[start...].firstRange(of: end) {
        head = found.upperBound
        break
      }
      head = received.count
      guard receive() else { return nil }
    }
    let lines = String(decoding: received[..<(head - 4)], as: UTF8.self).split(separator: "\r\n")
    let words = lines.first?.split(separator: " ") ?? []
    guard words.count >= 2, let status = Int(words[1]) else { return nil }
    let headers = lines.dropFirst().map { line in
      let name = line.prefix { $0 != ":" }
      return (
        name: String(name), value: String(line.dropFirst(name.count + 1).drop { $0 == " " })
      )
    }
    var reply = Reply(status: status, headers: headers, body: "")
    let length = hasBody ? Int(reply.header("Content-Length") ?? "") ?? 0 : 0
    while received.count < head + length {
      guard receive() else { return nil }
    }
    reply.body = String(decoding: received[head..<(head + length)], as: UTF8.self)
    received.removeFirst(head + length)
    return reply
  }

  // MARK: Streams

  /// Asks for a stream of events and takes the head of the reply.
  func listen(_ query: String = "", _ more: String = "") -> Reply? {
    send(
      "GET /v1/events\(query) HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\(more)\r\n"
    )
    return reply()
  }

  /// The lines of a chunked stream up to the next empty one; nil when none comes, or at the end.
  func block() -> String? {
    while true {
      if let end = streamed.firstRange(of: Array("\n\n".utf8)) {
        defer { streamed.removeFirst(end.upperBound) }
        return String(decoding: streamed[..<end.lowerBound], as: UTF8.self)
      }
      guard chunk() else { return nil }
    }
  }

  /// The next blocks that are events, each as its first word behind `id: ` and its type.
  func events(_ count: Int) -> [String] {
    var events: [String] = []
    while events.count < count, let block = block() {
      let lines = block.split(separator: "\n")
      func field(_ name: String) -> String? {
        lines.first { $0.hasPrefix(name) }.map { String($0.dropFirst(name.count)) }
      }
      guard let type = field("event: ") else { continue }
      events.append("\(field("id: ") ?? "-") \(type)")
    }
    return events
  }

  private func chunk() -> Bool {
    while true {
      if let line = received.firstRange(of: Array("\r\n".utf8)) {
        let size = Int(String(decoding: received[..<line.lowerBound], as: UTF8.self), radix: 16)
        guard let size, size > 0 else {
          hasStreamEnded = size == 0
          return false
        }
        if received.count >= line.upperBound + size + 2 {
          streamed += received[line.upperBound..<(line.upperBound + size)]
          received.removeFirst(line.upperBound + size + 2)
          return true
        }
      }
      guard receive() else { return false }
    }
  }
}
