internal import Glibc
internal import PloopIO
internal import PloopNBD

/// A server of disks in memory with limits that an input can reach, and a client that says what the input says.
final class FuzzServer: Sendable {
  private let place: FuzzFolder
  private let path: String
  private let directory = FuzzDirectory()
  private let engine = IOEngine(threadLimit: 4)
  private let server: Server<FuzzDirectory>

  init(_ mode: TLSMode) throws {
    place = try FuzzFolder()
    path = "\(place.folder.path)/nbd"
    var limits = Limits()
    limits.optionBytes = 2 << 10
    limits.optionDrainBytes = 8 << 10
    limits.options = 64
    limits.handshakeBytes = 64 << 10
    limits.nameBytes = 64
    limits.contextQueries = 8
    limits.contexts = 2
    limits.payloadBytes = 128 << 10
    limits.requestsInFlight = 4
    limits.bytesInFlight = 256 << 10
    limits.extentsPerReply = 3
    server = Server(directory: directory, engine: engine, limits: limits)
    // There is no certificate, so nobody gets behind the word that TLS begins.
    try server.listen(on: .unix(path: path), security: Security(mode: mode) { nil })
  }

  deinit {
    server.stop(until: .after(seconds: 20))
    engine.stop(until: .after(seconds: 20))
  }

  /// Says it all, and listens until the server hangs up.
  ///
  /// - Returns: what the server says.
  func converse(_ bytes: [UInt8]) throws -> [UInt8] {
    let client = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(client) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    // libFuzzer looks at its clock by a signal, which no call here is to end at.
    var isConnected: Int32
    repeat {
      isConnected = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          connect(client, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
    } while isConnected != 0 && errno == EINTR
    guard isConnected == 0 else { throw IOError("connect", path: path, code: errno) }
    var said = 0
    var heard: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    if bytes.isEmpty { shutdown(client, Int32(SHUT_WR)) }
    while true {
      // What it says is small enough for the socket, unless nobody listens.
      if said < bytes.count {
        let count = bytes.withUnsafeBytes {
          send(
            client, $0.baseAddress?.advanced(by: said), bytes.count - said,
            Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
        }
        let isPassing = errno == EAGAIN || errno == EINTR
        said = count < 0 && !isPassing ? bytes.count : said + max(0, count)
        if said == bytes.count { shutdown(client, Int32(SHUT_WR)) }
      }
      let count = recv(client, &buffer, buffer.count, said < bytes.count ? Int32(MSG_DONTWAIT) : 0)
      if count == 0 || count < 0 && errno != EAGAIN && errno != EINTR { break }
      if count > 0, heard.count < 1 << 20 { heard += buffer[..<count] }
    }
    return heard
  }

  /// Nothing of anybody is left, and nobody has written where nobody may.
  func check() throws {
    let isQuiet = server.waitForNobody(until: .after(seconds: 120))
    try promise(isQuiet, "a client that is gone is still there")
    try promise(server.bytesInFlight == 0, "\(server.bytesInFlight) bytes in flight of nobody")
    try promise(directory.readOnly.isUntouched, "a disk that is read-only was written")
  }
}

extension Server {
  fileprivate func waitForNobody(until deadline: Deadline) -> Bool {
    while connectionCount > 0 {
      if deadline.hasPassed { return false }
      sched_yield()
    }
    return true
  }
}
