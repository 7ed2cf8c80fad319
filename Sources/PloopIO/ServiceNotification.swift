internal import Glibc

/// What systemd is told about the service (man 3 sd_notify). Without a supervisor it does nothing.
package enum ServiceNotification {
  /// - Parameter message: assignments such as `READY=1`, one a line.
  package static func send(_ message: String) {
    guard let name = getenv("NOTIFY_SOCKET").map({ String(cString: $0) }),
      name.hasPrefix("/") || name.hasPrefix("@")
    else { return }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    var bytes = Array(name.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
    // A name in the abstract namespace begins with a zero byte, and its length counts.
    if bytes[0] == UInt8(ascii: "@") { bytes[0] = 0 }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let number = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard number >= 0 else { return }
    defer { close(number) }
    let size = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
    let text = Array(message.utf8)
    _ = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        sendto(number, text, text.count, Int32(MSG_NOSIGNAL), $0, size)
      }
    }
  }
}
