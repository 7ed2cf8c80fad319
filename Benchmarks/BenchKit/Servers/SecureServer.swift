internal import Glibc
internal import PloopIO
internal import TestSupport

/// A server that serves one disk by TLS, over TCP, and shows a certificate.
struct SecureServer {
  /// Its files, its process, and how it ends.
  let contender: Contender
  /// Where nbdcopy finds the disk, and whom it trusts there.
  let uri: String

  /// Copies between here and somewhere else, as people do.
  ///
  /// - Parameters:
  ///   - other: as nbdcopy takes it: a file, `null:`, or the address of another server.
  ///   - isWritten: whether the disk is what is written.
  func copy(_ other: String, isWritten: Bool = false) throws {
    let ends = isWritten ? [other, uri] : [uri, other]
    try Tool.shell("nbdcopy '\(ends[0])' '\(ends[1])'", seconds: 300)
  }
}

extension Servers {
  /// Makes an authority that signs one certificate, the same for all servers.
  ///
  /// - Returns: the folders of the servers and of their clients.
  func makeCertificates() throws -> (server: String, client: String) {
    let certificates = try Certificates(in: "\(folder)/\(newName("tls"))")
    try certificates.authority("authority")
    try certificates.make("server", by: "authority", "subjectAltName=DNS:localhost")
    return (
      try certificates.folder("own", ("server", "server"), trusting: "authority"),
      try certificates.folder("clients", nil, trusting: "authority")
    )
  }

  /// A service of its own, as those that measure without TLS are to have none.
  ///
  /// - Parameter fill: gets the disk as it is served in the open, on a Unix socket.
  func serveSecurely(
    _ certificates: (server: String, client: String), program: String, sizeBytes: Int,
    fill: (Contender) throws -> Void
  ) throws -> SecureServer {
    let service = try RunningService(
      in: "\(folder)/\(newName("secure"))", ["--nbd-tls-certificates", certificates.server],
      nbdListen: "127.0.0.1:0", program: program, logLevel: "info")
    let file = "\(service.images)/disk.hds"
    try make(.ploopd, file, sizeBytes: sizeBytes)
    let reply = try service.attach("disk", ["disk.hds"])
    guard reply.status == 201 else { throw BenchFailure("attach: \(reply.text)") }
    let contender = Contender(
      .ploopd, NBDAddress(door: .unix(service.nbdSocket), export: "disk"),
      process: service.process, files: [file]
    ) { _ = try service.end() }
    try fill(contender)
    let port = try service.nbdAddress().split(separator: ":").last ?? ""
    return SecureServer(
      contender: contender,
      uri: "nbds://localhost:\(port)/disk?tls-certificates=\(certificates.client)")
  }

  /// qemu-nbd on an image of ploop's format that lies there, with the cipher that its client would choose anyway.
  func serveSecurely(
    _ certificates: (server: String, client: String), image: String
  ) throws -> SecureServer {
    // One that nobody has now; this server cannot say which it was given.
    let probe = try ListeningSocket.tcp(host: "127.0.0.1", port: 0)
    let port = probe.port
    probe.shutDown()
    let uri = "nbds://localhost:\(port)/disk?tls-certificates=\(certificates.client)"
    let log = "\(folder)/\(newName("secure")).log"
    let child = try ChildProcess(
      [
        "/usr/bin/qemu-nbd", "-f", "parallels", "--aio=threads", "--cache=writeback",
        "--discard=unmap", "-t", "-e", "16", "-b", "127.0.0.1", "-p", "\(port)", "-x", "disk",
        "--object",
        "tls-creds-x509,id=t,endpoint=server,dir=\(certificates.server),verify-peer=no,priority=NORMAL:-CIPHER-ALL:+AES-256-GCM",
        "--tls-creds", "t", image,
      ], output: log, errors: log)
    let contender = Contender(
      .qemu, NBDAddress(door: .tcp(host: "localhost", port: "\(port)"), export: "disk"),
      process: child.number, files: [image]
    ) {
      child.signal(SIGTERM)
      if (try? child.wait(seconds: 20)) == nil { child.end() }
    }
    let deadline = Deadline.after(seconds: 20)
    while try Tool.shell("nbdinfo --size '\(uri)'", check: false).status != 0 {
      guard !deadline.hasPassed, child.isRunning else {
        throw BenchFailure("\(uri): \(try Tool.shell("cat '\(log)'").output)")
      }
      poll(nil, 0, 10)
    }
    return SecureServer(contender: contender, uri: uri)
  }
}
