import Glibc
import TestSupport
import Testing

@testable import PloopIO

@Suite("A listening socket")
struct ListeningSocketTests {
  @Test("it makes its file with the wanted mode, accepts, and removes the file when it goes")
  func lifecycle() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/socket"
    do {
      let socket = try ListeningSocket.unix(path: path, mode: 0o600)
      var status = stat()
      #expect(stat(path, &status) == 0)
      #expect(status.st_mode & 0o777 == 0o600)
      let client = try connect(to: path)
      defer { close(client) }
      #expect(socket.accept()?.peer.hasPrefix("unix:pid=\(getpid()),") == true)
    }
    #expect(access(path, F_OK) != 0)
  }

  @Test("one that was handed over goes on when its end here is over, and its file stays")
  func handedOver() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/socket"
    let own = try ListeningSocket.unix(path: path)
    do {
      let socket = try ListeningSocket(handedOver: dup(own.descriptorNumber))
      #expect(socket.address == path && socket.isUnix && socket.port == 0)
      let client = try connect(to: path)
      defer { close(client) }
      #expect(socket.accept() != nil)
      socket.shutDown()
      #expect(socket.accept() == nil)
      socket.removeFile()
    }
    let client = try connect(to: path)
    defer { close(client) }
    #expect(own.accept() != nil)
    let tcp = try ListeningSocket.tcp(host: "localhost", port: 0)
    let numbers = try ListeningSocket(handedOver: dup(tcp.descriptorNumber))
    #expect(["127.0.0.1:\(tcp.port)", "[::1]:\(tcp.port)"].contains(numbers.address))
    #expect(numbers.family == .tcp && numbers.port == tcp.port && !numbers.isOfAllAddresses)
  }

  @Test("what is sent to a client that has gone is refused, and ends no process")
  func gone() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/socket"
    let socket = try ListeningSocket.unix(path: path)
    let file = try ImageFolder(path: folder.path).create("pages")
    let bytes = AlignedBuffer(count: 4096).region
    try file.write(bytes, at: 0)
    let pages = try #require(file.lendNow(4096, at: 0))
    let client = try connect(to: path)
    let server = try #require(socket.accept())
    close(client)
    // A process that has said nothing of SIGPIPE, as others may have by now.
    let before = signal(SIGPIPE, SIG_DFL)
    defer { signal(SIGPIPE, before) }
    let results = Locked<[Bool]>([])
    try Thread(name: "sender") {
      for _ in 0..<2 {
        if case .ended = server.send(pages) {
          results.withLock { $0.append(true) }
        }
        if case .ended = server.send(bytes) { results.withLock { $0.append(true) } }
      }
    }.join()
    #expect(results.withLock { $0.count } == 4)
  }

  @Test("what nobody listens on is not taken")
  func notListening() throws {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
      let number = Glibc.socket(AF_UNIX, Int32(kind.rawValue), 0)
      let error = #expect(throws: IOError.self) { _ = try ListeningSocket(handedOver: number) }
      #expect(error?.code == EINVAL)
    }
    #expect(throws: IOError.self) {
      _ = try ListeningSocket(handedOver: open("/dev/null", O_RDONLY))
    }
  }

  @Test("virtual machines reach a vsock, where the kernel has any")
  func vsock() throws {
    guard access("/dev/vsock", F_OK) == 0 else {
      let error = #expect(throws: IOError.self) { _ = try ListeningSocket.vsock(port: 0) }
      #expect(error?.code == EAFNOSUPPORT || error?.code == ENODEV)
      return
    }
    let socket = try ListeningSocket.vsock(port: 0)
    #expect(socket.family == .vsock && socket.address.hasPrefix("vsock:"))
    let port = socket.address.dropFirst("vsock:".count)
    #expect(UInt32(port) != nil && socket.absoluteAddress.hasSuffix(":\(port)"))
    #expect(throws: IOError.self) {
      _ = try ListeningSocket.vsock(port: try #require(UInt32(port)))
    }
    let again = try ListeningSocket(handedOver: dup(socket.descriptorNumber))
    #expect(again.address == socket.address)
  }

  @Test("a stale file is replaced; one that is listened at is refused and goes on working")
  func staleAndLive() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/socket"
    try Tool.shell(
      "/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"\(path)\")'")
    #expect(access(path, F_OK) == 0)
    let socket = try ListeningSocket.unix(path: path)
    let error = #expect(throws: IOError.self) { _ = try ListeningSocket.unix(path: path) }
    #expect(error?.code == EADDRINUSE)
    let client = try connect(to: path)
    defer { close(client) }
    // The second one's connection comes first; it only asked whether anybody is there.
    #expect(socket.accept() != nil)
    #expect(socket.accept() != nil)
  }

  @Test(
    "whoever waits for its deadline waits until it has passed, and hears of a client that hangs up")
  func waits() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/socket"
    let listening = try ListeningSocket.unix(path: path)
    let client = try connect(to: path)
    defer { close(client) }
    let socket = try #require(listening.accept())
    let bell = try Bell()
    for _ in 0..<5 {
      let start = monotonicNanoseconds()
      let found = socket.wait(.gone, with: bell, until: .after(microseconds: 1_500))
      #expect(found == [] && monotonicNanoseconds() - start >= 1_500_000)
    }
    // As much as TCP tells of one that has closed its socket.
    #expect(Glibc.shutdown(client, Int32(SHUT_WR)) == 0)
    #expect(socket.wait(.gone, with: bell, until: .after(seconds: 120)) == .gone)
    bell.ring()
    // More milliseconds than poll takes.
    #expect(socket.wait([], with: bell, until: .after(seconds: 10_000_000)) == .woken)
  }

  @Test("a file that is no socket is never removed")
  func otherFile() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/image"
    try Tool.shell("echo precious > '\(path)'")
    #expect(throws: IOError.self) { _ = try ListeningSocket.unix(path: path) }
    #expect(try Tool.shell("cat '\(path)'").output == "precious\n")
  }

  @Test("it removes only its own file: not one that somebody has put in its place")
  func onlyItsOwn() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/socket"
    do {
      let socket = try ListeningSocket.unix(path: path)
      #expect(rename(path, "\(path).old") == 0)
      let other = try ListeningSocket.unix(path: path)
      socket.removeFile()
      #expect(access(path, F_OK) == 0)
      other.removeFile()
      #expect(access(path, F_OK) != 0)
    }
  }

  @Test("shutting down wakes whoever accepts; a path that is too long is refused")
  func wakes() throws {
    let folder = try TemporaryFolder()
    let socket = try ListeningSocket.unix(path: "\(folder.path)/socket")
    let woken = Monitor(false)
    let thread = try Thread(name: "acceptor") {
      let client = socket.accept()
      woken.update { $0 = client == nil }
    }
    socket.shutDown()
    #expect(woken.wait(until: .after(seconds: 10)) { $0 ? true : nil } == true)
    thread.join()
    let long = "\(folder.path)/\(String(repeating: "x", count: 108))"
    #expect(throws: IOError.self) { _ = try ListeningSocket.unix(path: long) }
  }

  @Test("TCP port 0 chooses a free port, and says which", arguments: ["127.0.0.1", "localhost"])
  func tcp(host: String) throws {
    let socket = try ListeningSocket.tcp(host: host, port: 0)
    #expect(socket.port != 0)
    #expect(socket.address == "\(host):\(socket.port)")
    #expect(throws: IOError.self) { _ = try ListeningSocket.tcp(host: host, port: socket.port) }
  }

  private func connect(to path: String) throws -> Int32 {
    let number = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let size = socklen_t(MemoryLayout<sockaddr_un>.size)
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(number, $0, size) }
    }
    try #require(result == 0)
    return number
  }
}
