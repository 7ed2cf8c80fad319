internal import CNBD
internal import Glibc
package import PloopIO

/// How an NBD server may be reached, and how long it may take.
package struct NBDOptions: Sendable {
  /// Whether the address has to be one with TLS (`nbds://`); else either is taken.
  package var requiresTLS = false
  /// Whether the server may be where a cloud keeps what only its machines are to see
  /// (``SocketAddress/isLinkLocal``).
  package var allowsLinkLocal = false
  /// From the first packet until the export is open. A name that nobody resolves may take longer.
  package var connectSeconds = 30
  /// A request without answer for so long ends the connection, if no other has had one meanwhile.
  package var requestSeconds = 60
  /// Finds the folder with the certificates: of authorities that may have signed the server's, and our own
  /// (`ca-cert.pem`, `client-cert.pem`, `client-key.pem`); nil for those of the system.
  package var certificates: (@Sendable () throws(BackupError) -> ImageFolder)?
  /// Whether the server has to show that it has the name of the address.
  package var verifiesServer = true
  /// Finds the socket of an address with the path of one, instead of that path.
  package var socket: (@Sendable () throws(BackupError) -> PathHandle)?

  package init() {}
}

/// A handle of libnbd's, closed with its owner.
///
/// Unchecked, and a pointer: that is what a handle of this C library is. Each of its calls takes a lock of the
/// handle's own, and what it says of an error is the calling thread's.
final class NBDHandle: @unchecked Sendable {
  let pointer: OpaquePointer

  init() throws(BackupError) {
    guard let pointer = nbd_create() else { throw nbdFailure("libnbd") }
    self.pointer = pointer
  }

  deinit { nbd_close(pointer) }
}

/// What libnbd says about the last call of this thread.
func nbdFailure(_ uri: String) -> BackupError {
  let code = nbd_get_errno()
  let words = nbd_get_error().map { String(cString: $0) } ?? "error \(code)"
  let isFull = code == ENOSPC || code == EDQUOT
  // Not everything has a number, as a name that nobody knows.
  return BackupError(
    isFull ? .outOfSpace : .target(code: code == 0 ? EHOSTUNREACH : code), "\(uri): \(words)")
}

/// Opens an export of an NBD server.
///
/// - Throws: `.target` when the server cannot be reached, or has no such export; `.mismatch` when it may not be.
package func openExport(
  nbd uri: String, _ options: NBDOptions = NBDOptions()
) throws(BackupError) -> any BlockExport {
  try NBDConnection(uri, options)
}

/// An open export of an NBD server, with several requests on their way (`NBDConnection+Requests.swift`).
final class NBDConnection: BlockExport {
  /// Most bytes of a request that carries any.
  private static let requestBytes: UInt64 = 1 << 20
  private static let context = "base:allocation"

  let name: String
  let facts: ExportFacts
  let requestSeconds: Int
  let handle: NBDHandle
  /// The connection's socket under a number of our own: libnbd closes its own whenever it finds it dead.
  let socket: OwnedDescriptor
  let bell: Bell
  let turn = Monitor(Turn())

  /// - Parameter uri: of a TCP or Unix socket; no file that it names is read.
  /// - Throws: `.target` when the server cannot be reached, or has no such export; `.mismatch` when it may
  ///   not be.
  init(_ uri: String, _ options: NBDOptions) throws(BackupError) {
    name = uri
    requestSeconds = options.requestSeconds
    let handle = try NBDHandle()
    self.handle = handle
    bell = try onTarget { () throws(IOError) in try Bell() }
    let (found, certificates) = (try options.socket?(), try options.certificates?())
    // The library opens both by paths that lead through us.
    defer { withExtendedLifetime((found, certificates)) {} }
    try NBDConnection.trust(handle, certificates, options, uri)
    try NBDConnection.connect(handle, NBDConnection.address(uri, found), options)
    let number = fcntl(nbd_aio_get_fd(handle.pointer), F_DUPFD_CLOEXEC, 0)
    guard number >= 0 else { throw BackupError(.last("fcntl", uri)) }
    socket = OwnedDescriptor(number)
    facts = try NBDConnection.facts(of: handle, uri)
  }

  /// An export of a program that is started for this connection, and ends with it.
  ///
  /// - Parameters:
  ///   - name: what it is called in messages.
  ///   - command: the program and its arguments; it finds its socket as services of systemd do.
  init(_ name: String, runningFor command: [String]) throws(BackupError) {
    self.name = name
    requestSeconds = NBDOptions().requestSeconds
    let handle = try NBDHandle()
    self.handle = handle
    bell = try onTarget { () throws(IOError) in try Bell() }
    // A command as C has it, with a null pointer at the end; libnbd copies it.
    var words: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
    defer { words.forEach { free($0) } }
    guard nbd_add_meta_context(handle.pointer, NBDConnection.context) == 0,
      nbd_connect_systemd_socket_activation(handle.pointer, &words) == 0
    else { throw nbdFailure(name) }
    let number = fcntl(nbd_aio_get_fd(handle.pointer), F_DUPFD_CLOEXEC, 0)
    guard number >= 0 else { throw BackupError(.last("fcntl", name)) }
    socket = OwnedDescriptor(number)
    facts = try NBDConnection.facts(of: handle, name)
  }

  deinit { hangUp() }

  /// The server is told; nobody waits for what it does then.
  func hangUp() {
    if nbd_aio_is_ready(handle.pointer) == 1 { _ = nbd_aio_disconnect(handle.pointer, 0) }
  }

  // MARK: Connecting

  private static func trust(
    _ handle: NBDHandle, _ certificates: ImageFolder?, _ options: NBDOptions, _ uri: String
  ) throws(BackupError) {
    guard nbd_set_tls_verify_peer(handle.pointer, options.verifiesServer) == 0 else {
      throw nbdFailure(uri)
    }
    guard let certificates else { return }
    let path = certificates.withDescriptor { "/proc/self/fd/\($0)" }
    guard nbd_set_tls_certificates(handle.pointer, path) == 0 else { throw nbdFailure(uri) }
  }

  /// The address with the socket that was found.
  private static func address(_ uri: String, _ socket: PathHandle?) -> String {
    guard let socket else { return uri }
    return "\(uri.prefix { $0 != "?" })?socket=\(socket.path)"
  }

  private static func connect(
    _ handle: NBDHandle, _ uri: String, _ options: NBDOptions
  ) throws(BackupError) {
    let pointer = handle.pointer
    let transports = UInt32(LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX)
    let tls = options.requiresTLS ? LIBNBD_TLS_REQUIRE : LIBNBD_TLS_ALLOW
    guard nbd_set_uri_allow_transports(pointer, transports) == 0,
      nbd_set_uri_allow_local_file(pointer, false) == 0,
      nbd_set_uri_allow_tls(pointer, Int32(tls)) == 0,
      nbd_add_meta_context(pointer, context) == 0
    else { throw nbdFailure(uri) }
    let deadline = Deadline.after(seconds: options.connectSeconds)
    guard nbd_aio_connect_uri(pointer, uri) == 0 else {
      let failure = nbdFailure(uri)
      // The address itself, whoever is there.
      let isRefused = failure.kind == .target(code: EPERM) || failure.kind == .target(code: EINVAL)
      throw isRefused ? BackupError(.mismatch, failure.detail) : failure
    }
    while nbd_aio_is_connecting(pointer) == 1 {
      try check(handle, uri, options)
      guard !deadline.hasPassed else {
        throw BackupError(
          .target(code: ETIMEDOUT), "\(uri): no connection within \(options.connectSeconds) s")
      }
      guard nbd_poll(pointer, Int32(clamping: min(1000, deadline.millisecondsLeft))) >= 0
      else { throw nbdFailure(uri) }
    }
    guard nbd_aio_is_ready(pointer) == 1 else {
      throw BackupError(.target(code: ECONNRESET), "\(uri): the server has hung up")
    }
    try check(handle, uri, options)
  }

  /// Looked at as soon as there is a peer: until the server has greeted, nothing is said to it.
  private static func check(
    _ handle: NBDHandle, _ uri: String, _ options: NBDOptions
  ) throws(BackupError) {
    let number = nbd_aio_get_fd(handle.pointer)
    guard !options.allowsLinkLocal, let peer = SocketAddress(peerOf: number), peer.isLinkLocal
    else { return }
    throw BackupError(
      .mismatch, "\(uri): \(SocketPeer(of: number)) is an address of the local link")
  }

  private static func facts(
    of handle: NBDHandle, _ uri: String
  ) throws(BackupError) -> ExportFacts {
    let pointer = handle.pointer
    let size = nbd_get_size(pointer)
    let least = nbd_get_block_size(pointer, Int32(LIBNBD_SIZE_MINIMUM))
    let most = nbd_get_block_size(pointer, Int32(LIBNBD_SIZE_MAXIMUM))
    guard size >= 0, least >= 0, most >= 0 else { throw nbdFailure(uri) }
    let block = UInt64(max(1, least))
    guard block.nonzeroBitCount == 1, block <= requestBytes else {
      throw BackupError(.mismatch, "\(uri) takes no request under \(block) bytes")
    }
    var facts = ExportFacts(sizeBytes: UInt64(size))
    facts.isReadOnly = nbd_is_read_only(pointer) != 0
    facts.canFlush = nbd_can_flush(pointer) == 1
    facts.canZero = nbd_can_zero(pointer) == 1
    facts.tellsZeroes = nbd_can_meta_context(pointer, context) == 1
    facts.blockBytes = block
    // 0: the server does not say, and then takes 32 MiB (NBD protocol, "Block size constraints").
    let limit = most == 0 ? requestBytes : min(requestBytes, UInt64(most) / block * block)
    facts.limitBytes = max(limit, block)
    return facts
  }
}
