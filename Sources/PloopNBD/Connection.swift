internal import PloopIO
internal import PloopTLS
internal import Synchronization

/// One client: a thread of its own that shakes hands and then carries requests out until it is over.
final class Connection<Directory: ExportDirectory>: Sendable {
  private static var inputBytes: Int { 256 << 10 }

  let id: UInt64
  let socket: StreamSocket
  let mailbox: Mailbox
  let engine: IOEngine
  let budget: MemoryBudget
  let limits: Limits
  /// Wall-clock seconds since 1970.
  let since: Double
  let traffic = ClientTraffic()
  /// Requests so far, refused ones too.
  let requests = Atomic<UInt64>(0)
  private let ending = Atomic<Bool>(false)
  private let isLeaving = Atomic<Bool>(false)
  private let exportName = Locked<[UInt8]?>(nil)
  private let size = Locked<UInt64?>(nil)
  private let security: Security
  private let agreed = Locked(Agreement())
  private let directory: Directory
  private let observer: ClientObserver?

  init(
    id: UInt64, socket: StreamSocket, security: Security, directory: Directory, engine: IOEngine,
    budget: MemoryBudget, limits: Limits, since: Double, observer: ClientObserver?
  ) throws(IOError) {
    self.id = id
    self.socket = socket
    self.security = security
    self.directory = directory
    self.engine = engine
    self.budget = budget
    self.limits = limits
    self.since = since
    self.observer = observer
    mailbox = try Mailbox()
  }

  /// The export that the client is using, from the moment when it is about to.
  var export: [UInt8]? { exportName.withLock { $0 } }

  /// How large the client was told that it is; nil until then.
  var exportSize: UInt64? { size.withLock { $0 } }

  /// What has been agreed on so far.
  var agreement: Agreement { agreed.withLock { $0 } }

  /// Options and requests that arrive from now on are refused; the connection ends once those that
  /// have been received are answered.
  ///
  /// - Parameter isLeaving: requests that have not begun are not answered instead. Who comes back to another process
  ///   asks again for what he has had no answer to, while he would take a refusal for the answer.
  func end(isLeaving: Bool = false) {
    if isLeaving { self.isLeaving.store(true, ordering: .sequentiallyConsistent) }
    ending.store(true, ordering: .sequentiallyConsistent)
    mailbox.bell.ring()
  }

  var isEnding: Bool { ending.load(ordering: .acquiring) }
  /// Whether requests that have not begun are not answered.
  var leavesRest: Bool { isLeaving.load(ordering: .acquiring) }

  /// The connection's whole life; returns when it is over.
  func run() {
    var input = InputStream(capacity: Self.inputBytes)
    let stream = ClientStream(socket)
    let session = shakeHands(stream, &input)
    let name = export
    var transmission: Transmission<Directory>?
    if let session {
      if let name { observer?(name, true) }
      transmission = Transmission(self, stream, session, input)
      transmission?.run()
      transmission?.close()
    }
    exportName.withLock { $0 = nil }
    if session != nil, let name { observer?(name, false) }
    leave(stream)
    if let reason = stream.failure { security.broke(socket.peer, reason) }
    transmission?.linger()
  }

  /// Closing over bytes that nobody has read resets a TCP connection and takes replies back that
  /// are under way, so the client is given a moment to hang up by itself.
  private func leave(_ stream: ClientStream) {
    stream.shutDownSending()
    stream.drop(with: mailbox.bell, until: .after(milliseconds: 300))
    socket.shutDown()
  }

  // MARK: Handshake

  private func shakeHands(
    _ stream: ClientStream, _ input: inout InputStream
  ) -> Session<Directory.Door>? {
    let deadline = Deadline.after(seconds: limits.handshakeSeconds)
    var greeting = MessageWriter()
    greeting.append(Greeting.magic)
    greeting.append(Greeting.optionMagic)
    greeting.append(Greeting.fixedNewstyle | Greeting.noZeroes)
    guard send(greeting.bytes, stream, until: deadline),
      let flags = take(4, stream, &input, until: deadline)?.bigEndian(at: 0, as: UInt32.self),
      Handshake<Directory>.accepts(clientFlags: flags)
    else { return nil }
    func begin() -> Handshake<Directory> {
      let agreement = agreement
      let visitor = Visitor(
        peer: socket.identity, isSecure: agreement.tls != nil, names: agreement.names)
      return Handshake(
        directory: directory, limits: limits, clientFlags: flags, security: security.mode,
        visitor: visitor
      ) { name in self.exportName.withLock { $0 = name } }
    }
    var handshake = begin()
    while let header = take(16, stream, &input, until: deadline) {
      guard header.bigEndian(at: 0, as: UInt64.self) == Greeting.optionMagic else { return nil }
      let option = header.bigEndian(at: 8, as: UInt32.self)
      let length = Int(header.bigEndian(at: 12, as: UInt32.self))
      guard length <= limits.optionDrainBytes else { return nil }
      var data: [UInt8]?
      if length <= limits.optionBytes {
        guard let region = take(length, stream, &input, until: deadline) else { return nil }
        data = region.bytes
      } else {
        guard drain(length, stream, &input, until: deadline) else { return nil }
      }
      var out = MessageWriter()
      let outcome = handshake.receive(
        option: option, length: length, data: data, isEnding: isEnding, into: &out)
      // Whoever asks once the client is in finds what it was told.
      if case .transmit(let session) = outcome {
        size.withLock { $0 = session.door.size }
        agreed.withLock { session.describe(in: &$0) }
      }
      guard send(out.bytes, stream, until: deadline) else { return nil }
      switch outcome {
      case .again: continue
      case .secure:
        // What somebody in between has put behind the option would count as said within TLS (CVE-2021-3716).
        guard input.available == 0 else {
          security.failed(socket.peer, "something came behind STARTTLS that is no TLS")
          return nil
        }
        guard secure(stream, until: deadline) else { return nil }
        // Nothing that was said in the open holds.
        handshake = begin()
      case .close: return nil
      case .transmit(let session): return session
      }
    }
    return nil
  }

  private func secure(_ stream: ClientStream, until deadline: Deadline) -> Bool {
    do throws(TLSFault) {
      guard let identity = security.identity() else { throw TLSFault("there are no certificates") }
      let session = try TLSSession(identity)
      try stream.secure(by: session, bell: mailbox.bell, until: deadline, while: { !isEnding })
      agreed.withLock {
        $0.tls = session.summary
        $0.names = session.clientNames
      }
    } catch {
      security.failed(socket.peer, error.description)
      return false
    }
    security.succeeded()
    return true
  }

  /// The next `count` bytes, at most as many as the input holds, once they are all there.
  private func take(
    _ count: Int, _ stream: ClientStream, _ input: inout InputStream, until deadline: Deadline
  ) -> ByteRegion? {
    while input.available < count {
      guard receiveMore(stream, &input, until: deadline) else { return nil }
    }
    return input.take(count)
  }

  private func drain(
    _ count: Int, _ stream: ClientStream, _ input: inout InputStream, until deadline: Deadline
  ) -> Bool {
    var left = count
    while left > 0 {
      if input.available == 0, !receiveMore(stream, &input, until: deadline) { return false }
      left -= input.skip(left)
    }
    return true
  }

  private func receiveMore(
    _ stream: ClientStream, _ input: inout InputStream, until deadline: Deadline
  ) -> Bool {
    while !deadline.hasPassed {
      // Looked at before the socket: what had arrived by then is still answered.
      let isLast = isEnding
      switch stream.receive(into: input.free()) {
      case .bytes(let count):
        input.received(count)
        traffic.received.wrappingAdd(UInt64(count), ordering: .relaxed)
        return true
      case .ended: return false
      case .wouldBlock:
        guard !isLast else { return false }
        stream.wait(.readable, with: mailbox.bell, until: deadline)
      }
    }
    return false
  }

  private func send(
    _ bytes: [UInt8], _ stream: ClientStream, until deadline: Deadline
  ) -> Bool {
    let region = AlignedBuffer(bytes).region
    var done = 0
    while done < region.count {
      switch stream.send(region.slice(done, region.count - done)) {
      case .bytes(let count):
        done += count
        traffic.sent.wrappingAdd(UInt64(count), ordering: .relaxed)
      case .ended: return false
      case .wouldBlock:
        // A client that takes its answers slowly is not waited for when the server goes.
        guard !isEnding, !deadline.hasPassed else { return false }
        stream.wait(.writable, with: mailbox.bell, until: deadline)
      }
    }
    return true
  }
}
