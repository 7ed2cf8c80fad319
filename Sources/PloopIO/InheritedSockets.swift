internal import Glibc

/// Sockets that somebody else listens on already and has handed to this process, by name (man 3 sd_listen_fds): systemd,
/// which goes on listening while the service is started again.
package enum InheritedSockets {
  /// Something that was handed over and cannot be used.
  package struct Fault: Error, CustomStringConvertible {
    package let description: String
  }

  /// man 3 sd_listen_fds: SD_LISTEN_FDS_START.
  private static let firstNumber: Int32 = 3
  private static let mostSockets: Int32 = 1_024

  /// Takes what is there, once: programs that this one starts are not told of it, and do not get it.
  ///
  /// Call it before there are other threads, which may look at the environment.
  ///
  /// - Parameter names: what a socket may be called; the first is for all where none has a name.
  /// - Returns: in their order; nothing where they are another process's, or there are none.
  package static func take(
    called names: [String]
  ) throws(Fault) -> [(name: String, socket: ListeningSocket)] {
    let (process, count) = (takeVariable("LISTEN_PID"), takeVariable("LISTEN_FDS"))
    let called = takeVariable("LISTEN_FDNAMES")?
      .split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard let process, Int32(process) == getpid(), let text = count else { return [] }
    guard let count = Int32(text), (1...mostSockets).contains(count) else {
      throw Fault(description: "LISTEN_FDS=\(text) is no number of sockets")
    }
    for number in firstNumber..<firstNumber + count { _ = fcntl(number, F_SETFD, FD_CLOEXEC) }
    if let called, called.count != Int(count) {
      throw Fault(description: "LISTEN_FDNAMES has \(called.count) names for \(count) sockets")
    }
    var sockets: [(name: String, socket: ListeningSocket)] = []
    for index in 0..<count {
      let name = called?[Int(index)] ?? names.first ?? ""
      guard names.contains(name) else {
        throw Fault(
          description:
            "a socket that was handed over is called \(name.prefix(80)), and FileDescriptorName= has to be \(names.joined(separator: " or "))"
        )
      }
      do throws(IOError) {
        sockets.append((name, try ListeningSocket(handedOver: firstNumber + index)))
      } catch {
        throw Fault(description: "a socket that was handed over as \(name) is of no use: \(error)")
      }
    }
    return sockets
  }

  private static func takeVariable(_ name: String) -> String? {
    defer { unsetenv(name) }
    return getenv(name).map { String(cString: $0) }
  }
}
