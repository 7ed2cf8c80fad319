import PloopIO
import TestSupport
import Testing

@testable import PloopPeer

@Suite("Another service, as its clients see it")
struct PeerTests {
  /// Answers each request with what the test says, on a Unix socket.
  private final class Server {
    private let folder: TemporaryFolder
    private let process: ChildProcess

    var address: PeerAddress {
      PeerAddress(socketNamed: "server") { [path = folder.path] () throws(PeerError) in
        do throws(IOError) { return try ImageFolder(path: path).place(of: "socket") } catch {
          throw PeerError(.unreachable, error.description)
        }
      }
    }

    /// - Parameter reply: bytes, as Python writes them; nothing is answered at all where it is empty.
    init(_ reply: String) throws {
      folder = try TemporaryFolder()
      try Tool.shell(
        """
        cat > '\(folder.path)/server.py' <<'END'
        import socket, sys
        s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1] + ".new"); s.listen(9)
        import os; os.rename(sys.argv[1] + ".new", sys.argv[1])
        while True:
            c, _ = s.accept()
            text = b""
            while b"\\r\\n\\r\\n" not in text: text += c.recv(65536)
            reply = \(reply.isEmpty ? "b''" : reply)
            if not reply: c.recv(1) # until the client hangs up
            c.sendall(reply); c.close()
        END
        """)
      process = try ChildProcess(
        ["/usr/bin/python3", "\(folder.path)/server.py", "\(folder.path)/socket"],
        output: "\(folder.path)/log", errors: "\(folder.path)/log")
      let deadline = Deadline.after(seconds: 120)
      while !(try ImageFolder(path: folder.path).contains("socket")) {
        guard process.isRunning, !deadline.hasPassed else {
          throw Tool.Failure(description: try Tool.shell("cat '\(folder.path)/log'").output)
        }
      }
    }

    deinit { process.end() }
  }

  private func kind(_ body: () throws -> Void) -> PeerError.Kind? {
    do {
      try body()
      return nil
    } catch { return (error as? PeerError)?.kind }
  }

  private func answering(_ status: String, _ body: String) throws -> PeerService {
    let server = try Server(
      "b'HTTP/1.1 \(status) X\\r\\nContent-Length: \(body.utf8.count)\\r\\n\\r\\n' + b'\(body)'"
    )
    servers.withLock { $0.append(server) }
    return PeerService(server.address)
  }

  private let servers = Locked<[Server]>([])

  @Test("addresses are those of hosts, and nothing else")
  func addresses() {
    for good in ["http://10.0.0.9", "http://[::1]:7447", "https://storage.example:8443/"] {
      #expect(PeerAddress(good) != nil, "\(good)")
    }
    for bad in ["", "http://", "ftp://x", "http://x/y", "http://a@b", "http://x?y", "http://x y"] {
      #expect(PeerAddress(bad) == nil, "\(bad)")
    }
  }

  @Test("answers are taken apart, and what is not there is none")
  func answers() throws {
    let device =
      #"{"id":"vm","state":"online","size":5,"incoming":"j","exports":[{"name":"e","device":"vm","readonly":false,"x":1}],"more":{}}"#
    let found = try #require(try answering("200", device).device("vm"))
    #expect(found.id == "vm" && found.size == 5 && found.incoming == "j")
    #expect(found.exports.map(\.name) == ["e"])
    let gone = try answering("404", #"{"code":"device-not-found","detail":"d"}"#)
    #expect(try gone.device("vm") == nil)
    #expect(try gone.export("vm") == nil)
    try gone.remove(device: "vm")
    try gone.removeExport("vm")
  }

  @Test("refusals have the other service's code, and what may pass is told from them")
  func refusals() throws {
    let refusing = try answering("409", #"{"code":"image-exists","detail":"d"}"#)
    #expect(
      kind { try refusing.addExport("e", of: "vm") }
        == .refused(status: 409, code: "image-exists"))
    let starting = try answering("503", #"{"code":"not-ready","detail":"d"}"#)
    #expect(kind { _ = try starting.device("vm") } == .unreachable)
    #expect(kind { _ = try answering("502", "<html>").device("vm") } == .unreachable)
    #expect(
      kind { _ = try answering("400", "<html>").device("vm") } == .refused(status: 400, code: ""))
    #expect(kind { _ = try answering("200", "[]").device("vm") } == .unsuitable)
    #expect(kind { _ = try answering("302", "").device("vm") } == .refused(status: 302, code: ""))
  }

  @Test("who is silent, says too much, or is not there, is given up")
  func silence() throws {
    let silent = try Server("")
    var client = HTTPClient(address: silent.address)
    client.seconds = 1
    #expect(kind { _ = try client.send("GET", "/") } == .unreachable)
    let long = try Server("b'HTTP/1.1 200 X\\r\\n\\r\\n' + bytes(2 << 20)")
    #expect(kind { _ = try HTTPClient(address: long.address).send("GET", "/") } == .unsuitable)
    let rubbish = try Server("b'SSH-2.0\\r\\n' * 9")
    #expect(kind { _ = try HTTPClient(address: rubbish.address).send("GET", "/") } == .unreachable)
    let folder = try TemporaryFolder()
    let nobody = PeerAddress(socketNamed: "nobody") { () throws(PeerError) in
      do throws(IOError) { return try ImageFolder(path: folder.path).place(of: "socket") } catch {
        throw PeerError(.unreachable, error.description)
      }
    }
    #expect(kind { _ = try HTTPClient(address: nobody).send("GET", "/") } == .unreachable)
    let local = try #require(PeerAddress("http://169.254.169.254"))
    #expect(kind { _ = try HTTPClient(address: local).send("GET", "/") } == .unsuitable)
  }

  @Test("who tells us our own token is not listened to, and who comes without TLS is told none")
  func token() throws {
    let folder = try TemporaryFolder()
    let made = try Certificates(in: folder.path)
    try made.authority("ca-cert")
    try made.make("server", by: "ca-cert", "subjectAltName=DNS:localhost")
    try Tool.shell("echo plp_secret > '\(folder.path)/token'")
    let process = try ChildProcess(
      ["/usr/bin/python3", "-c", Self.echo, folder.path], output: "\(folder.path)/log",
      errors: "\(folder.path)/log")
    defer { process.end() }
    let port = try Tool.shell(
      "cd '\(folder.path)'; until [ -s port ]; do kill -0 \(process.number) || exit 1; done; cat port",
      seconds: 120
    ).output
    let found = try ImageFolder(path: folder.path)
    let address = try #require(
      PeerAddress("https://localhost:\(port)") { () throws(PeerError) in
        try PeerCredentials(in: found)
      })
    let client = HTTPClient(address: address)
    let shown = #expect(throws: PeerError.self) { try client.send("GET", "/") }
    #expect(shown?.detail.contains("holds the token") == true, "\(shown?.detail ?? "")")
    try Tool.shell("rm '\(folder.path)/token'")
    let reply = try client.send("GET", "/path")
    #expect(String(decoding: reply.body, as: UTF8.self).contains("GET /path"))
    #expect(
      PeerAddress("http://localhost") { () throws(PeerError) in
        throw PeerError(.unsuitable, "")
      } == nil)
  }

  /// Answers each request, over TLS, with its own words.
  private static let echo = """
    import os, socket, ssl, sys
    os.chdir(sys.argv[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("server.pem", "server-key.pem")
    s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(9)
    with open("port.new", "w") as f: f.write(str(s.getsockname()[1]))
    os.rename("port.new", "port")
    while True:
        c = context.wrap_socket(s.accept()[0], server_side=True)
        text = b""
        while b"\\r\\n\\r\\n" not in text: text += c.recv(65536)
        c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(text) + text); c.unwrap()
    """
}
