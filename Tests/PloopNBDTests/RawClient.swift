import Glibc
import TestSupport

/// A client that says exactly the bytes it is told to.
final class RawClient {
  /// How requests and replies are laid out.
  enum Style: CaseIterable { case simple, structured, extended }

  private let descriptor: Int32
  private(set) var style = Style.simple

  convenience init(_ path: String) throws {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try self.init(descriptor, isConnected: connected == 0, to: path)
  }

  convenience init(port: UInt16) throws {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    try self.init(descriptor, isConnected: connected == 0, to: "port \(port)")
  }

  private init(_ descriptor: Int32, isConnected: Bool, to address: String) throws {
    self.descriptor = descriptor
    guard isConnected else { throw Tool.Failure(description: "cannot connect to \(address)") }
    var time = timeval(tv_sec: 20, tv_usec: 0)
    let size = socklen_t(MemoryLayout<timeval>.size)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, size)
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, size)
  }

  /// - Returns: whether the server took it all.
  @discardableResult
  func send(_ bytes: [UInt8]) -> Bool {
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeBytes { buffer in
        buffer.baseAddress.map {
          Glibc.send(descriptor, $0 + done, bytes.count - done, Int32(MSG_NOSIGNAL))
        } ?? 0
      }
      guard count > 0 else { return false }
      done += count
    }
    return true
  }

  /// Sends what the socket takes now.
  func sendNow(_ bytes: [UInt8]) -> Int {
    max(0, Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT)))
  }

  /// Exactly so many bytes, or fewer when the server has hung up or says nothing for 20 s.
  func receive(_ count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let more = bytes.withUnsafeMutableBytes { buffer in
        buffer.baseAddress.map { recv(descriptor, $0 + done, count - done, 0) } ?? 0
      }
      guard more > 0 else { break }
      done += more
    }
    return Array(bytes[..<done])
  }

  /// Up to so many bytes; 0 when the server has hung up, -1 when it says nothing for 20 s.
  func receiveSome(_ count: Int) -> Int {
    var bytes = [UInt8](repeating: 0, count: count)
    let received = recv(descriptor, &bytes, count, 0)
    return received < 0 && errno == ECONNRESET ? 0 : received
  }

  /// Whether the server hangs up without saying anything more.
  var isHungUp: Bool {
    var byte: UInt8 = 0
    return recv(descriptor, &byte, 1, 0) == 0 || errno == ECONNRESET
  }

  func halfClose() { shutdown(descriptor, Int32(SHUT_WR)) }

  deinit { close(descriptor) }
}

/// A client that two threads use without getting in each other's way.
struct Unchecked: @unchecked Sendable {
  let value: RawClient
  init(_ value: RawClient) { self.value = value }
}

func big(_ value: some FixedWidthInteger) -> [UInt8] {
  stride(from: type(of: value).bitWidth - 8, through: 0, by: -8).map {
    UInt8(truncatingIfNeeded: value >> $0)
  }
}

func number<Number: FixedWidthInteger>(_ bytes: some Sequence<UInt8>, as: Number.Type) -> Number {
  bytes.reduce(0) { $0 << 8 | Number($1) }
}

// MARK: The handshake in numbers

let optionError: UInt32 = 1 << 31

extension RawClient {
  struct OptionAnswer {
    /// Of the reply that ends the option; 0 when the server hung up instead.
    let type: UInt32
    let data: [UInt8]
    /// The replies before it.
    let items: [(type: UInt32, data: [UInt8])]
    var words: String { String(decoding: data, as: UTF8.self) }
  }

  static func option(_ code: UInt32, _ data: [UInt8]) -> [UInt8] {
    Array("IHAVEOPT".utf8) + big(code) + big(UInt32(data.count)) + data
  }

  static func goData(_ name: String, infos: [UInt16] = []) -> [UInt8] {
    big(UInt32(name.utf8.count)) + Array(name.utf8) + big(UInt16(infos.count))
      + infos.flatMap { big($0) }
  }

  static func contextData(_ name: String, _ queries: [String]) -> [UInt8] {
    big(UInt32(name.utf8.count)) + Array(name.utf8) + big(UInt32(queries.count))
      + queries.flatMap { big(UInt32($0.utf8.count)) + Array($0.utf8) }
  }

  /// - Returns: the server's greeting.
  @discardableResult
  func greet(flags: UInt32 = 3) -> [UInt8] {
    let greeting = receive(18)
    send(big(flags))
    return greeting
  }

  func answer(to option: UInt32) -> OptionAnswer {
    var items: [(type: UInt32, data: [UInt8])] = []
    while true {
      let header = receive(20)
      guard header.count == 20,
        number(header[..<8], as: UInt64.self) == 0x0003_e889_0455_65a9,
        number(header[8..<12], as: UInt32.self) == option
      else { return OptionAnswer(type: 0, data: [], items: items) }
      let type = number(header[12..<16], as: UInt32.self)
      let data = receive(number(header[16...], as: Int.self))
      if type == 1 || type >= optionError {
        return OptionAnswer(type: type, data: data, items: items)
      }
      items.append((type, data))
    }
  }

  func ask(_ option: UInt32, _ data: [UInt8] = []) -> OptionAnswer {
    send(RawClient.option(option, data))
    return answer(to: option)
  }

  /// Greets and enters transmission.
  func enter(_ name: String, style: Style = .structured, contexts: [String] = []) -> Bool {
    greet()
    guard turnOn(style) else { return false }
    if !contexts.isEmpty, ask(10, RawClient.contextData(name, contexts)).type != 1 { return false }
    return ask(7, RawClient.goData(name)).type == 1
  }

  func turnOn(_ style: Style) -> Bool {
    self.style = style
    switch style {
    case .simple: return true
    case .structured: return ask(8).type == 1
    case .extended: return ask(11).type == 1
    }
  }
}

// MARK: Transmission in numbers

extension RawClient {
  struct Chunk {
    let isDone: Bool
    let type: UInt16
    let cookie: UInt64
    /// Of the request, as an extended header repeats it.
    let offset: UInt64?
    let payload: [UInt8]

    /// What a status says: its context, and lengths with their flags; nil for what is none.
    var status: (id: UInt32, runs: [[UInt64]])? {
      guard type == 5 || type == 6, payload.count >= 8 else { return nil }
      let (start, size) = type == 5 ? (4, 4) : (8, 8)
      let numbers = stride(from: start, to: payload.count, by: size).map {
        number(payload[$0..<$0 + size], as: UInt64.self)
      }
      let runs = stride(from: 0, to: numbers.count, by: 2).map { [numbers[$0], numbers[$0 + 1]] }
      if type == 6, number(payload[4..<8], as: Int.self) != runs.count { return nil }
      return (number(payload[..<4], as: UInt32.self), runs)
    }
  }

  struct Answer {
    var isStructured = false
    /// Nil when the server hung up instead.
    var error: UInt32?
    var cookie: UInt64 = 0
    var words = ""
    var errorOffset: UInt64?
    var chunks: [Chunk] = []
    /// What a simple reply to a read carries.
    var data: [UInt8] = []

    /// What a read told, however it was laid out.
    func content(at start: Int, _ count: Int) -> [UInt8] {
      guard isStructured else { return data }
      var bytes = [UInt8](repeating: 0xEE, count: count)
      for chunk in chunks where chunk.type == 1 || chunk.type == 2 {
        let place = number(chunk.payload[..<8], as: Int.self) - start
        let told =
          chunk.type == 1
          ? Array(chunk.payload[8...])
          : [UInt8](repeating: 0, count: number(chunk.payload[8...], as: Int.self))
        guard place >= 0, place + told.count <= count else { return [] }
        bytes.replaceSubrange(place..<place + told.count, with: told)
      }
      return bytes
    }
  }

  static func request(
    _ type: UInt16, offset: UInt64 = 0, length: UInt32 = 0, flags: UInt16 = 0, cookie: UInt64 = 7
  ) -> [UInt8] {
    big(UInt32(0x2560_9513)) + big(flags) + big(type) + big(cookie) + big(offset) + big(length)
  }

  /// A request as this client's headers are.
  func request(
    _ type: UInt16, offset: UInt64 = 0, length: any FixedWidthInteger = 0, flags: UInt16 = 0,
    cookie: UInt64 = 7
  ) -> [UInt8] {
    guard style == .extended else {
      return RawClient.request(
        type, offset: offset, length: UInt32(length), flags: flags, cookie: cookie)
    }
    return big(UInt32(0x21e4_1c71)) + big(flags | (type == 1 ? 32 : 0)) + big(type) + big(cookie)
      + big(offset) + big(UInt64(length))
  }

  func call(
    _ type: UInt16, offset: UInt64 = 0, length: any FixedWidthInteger = 0, flags: UInt16 = 0,
    payload: [UInt8] = []
  ) -> Answer {
    send(request(type, offset: offset, length: length, flags: flags) + payload)
    return answer(reading: type == 0 ? Int(clamping: length) : 0)
  }

  /// - Parameter reading: bytes that follow a simple reply without an error.
  func answer(reading: Int = 0) -> Answer {
    var answer = Answer()
    while true {
      let start = receive(16)
      guard start.count == 16 else { return answer }
      answer.cookie = number(start[8...], as: UInt64.self)
      let magic = number(start[..<4], as: UInt32.self)
      guard magic == (style == .extended ? 0x6e8a_278c : 0x668e_33ef) else {
        guard magic == 0x6744_6698, style != .extended else { return answer }
        answer.error = number(start[4..<8], as: UInt32.self)
        if answer.error == 0 { answer.data = receive(reading) }
        return answer
      }
      answer.isStructured = true
      let offset = style == .extended ? number(receive(8), as: UInt64.self) : nil
      let payload = receive(number(receive(style == .extended ? 8 : 4), as: Int.self))
      let chunk = Chunk(
        isDone: start[5] & 1 == 1, type: number(start[6..<8], as: UInt16.self),
        cookie: answer.cookie, offset: offset, payload: payload)
      answer.chunks.append(chunk)
      if chunk.type >= 0x8000 {
        answer.error = number(payload[..<4], as: UInt32.self)
        let count = number(payload[4..<6], as: Int.self)
        answer.words = String(decoding: payload[6..<6 + count], as: UTF8.self)
        if chunk.type == 0x8002 {
          answer.errorOffset = number(payload[(6 + count)...], as: UInt64.self)
        }
      }
      if chunk.isDone {
        answer.error = answer.error ?? 0
        return answer
      }
    }
  }
}
