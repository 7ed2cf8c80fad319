internal import PloopIO
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
  let received = Atomic<UInt64>(0)
  let sent = Atomic<UInt64>(0)
  private let ending = Atomic<Bool>(false)
  private let exportName = Locked<[UInt8]?>(nil)
  private let size = Locked<UInt64?>(nil)
  private let directory: Directory
  private let observer: ClientObserver?

  init(
    id: UInt64, socket: StreamSocket, directory: Directory, engine: IOEngine,
    budget: MemoryBudget, limits: Limits, since: Double, observer: ClientObserver?
  ) throws(IOError) {
    self.id = id
    self.socket = socket
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

  /// Options and requests that arrive from now on are refused; the connection ends once those that
  /// have been received are answered.
  func end() {
    ending.store(true, ordering: .sequentiallyConsistent)
    mailbox.bell.ring()
  }

  var isEnding: Bool { ending.load(ordering: .acquiring) }

  /// The connection's whole life; returns when it is over.
  func run() {
    var input = InputStream(capacity: Self.inputBytes)
    let session = shakeHands(&input)
    let name = export
    var transmission: Transmission<Directory>?
    if let session {
      size.withLock { $0 = session.door.size }
      if let name { observer?(name, true) }
      transmission = Transmission(self, session, input)
      transmission?.run()
      transmission?.close()
    }
    exportName.withLock { $0 = nil }
    if session != nil, let name { observer?(name, false) }
    leave()
    transmission?.linger()
  }

  /// Closing over bytes that nobody has read resets a TCP connection and takes replies back that
  /// are under way, so the client is given a moment to hang up by itself.
  private func leave() {
    socket.shutDownSending()
    let scratch = AlignedBuffer(unfilled: 16 << 10).region
    let deadline = Deadline.after(milliseconds: 300)
    waiting: while !deadline.hasPassed {
      switch socket.receive(into: scratch) {
      case .bytes: continue
      case .ended: break waiting
      case .wouldBlock: _ = socket.wait(.readable, with: mailbox.bell, until: deadline)
      }
    }
    socket.shutDown()
  }

  // MARK: Handshake

  private func shakeHands(_ input: inout InputStream) -> Session<Directory.Door>? {
    let deadline = Deadline.after(seconds: limits.handshakeSeconds)
    var greeting = MessageWriter()
    greeting.append(Greeting.magic)
    greeting.append(Greeting.optionMagic)
    greeting.append(Greeting.fixedNewstyle | Greeting.noZeroes)
    guard send(greeting.bytes, until: deadline),
      let flags = take(4, &input, until: deadline)?.bigEndian(at: 0, as: UInt32.self),
      Handshake<Directory>.accepts(clientFlags: flags)
    else { return nil }
    var handshake = Handshake(directory: directory, limits: limits, clientFlags: flags) { name in
      self.exportName.withLock { $0 = name }
    }
    while let header = take(16, &input, until: deadline) {
      guard header.bigEndian(at: 0, as: UInt64.self) == Greeting.optionMagic else { return nil }
      let option = header.bigEndian(at: 8, as: UInt32.self)
      let length = Int(header.bigEndian(at: 12, as: UInt32.self))
      guard length <= limits.optionDrainBytes else { return nil }
      var data: [UInt8]?
      if length <= limits.optionBytes {
        guard let region = take(length, &input, until: deadline) else { return nil }
        data = region.bytes
      } else {
        guard drain(length, &input, until: deadline) else { return nil }
      }
      var out = MessageWriter()
      let outcome = handshake.receive(
        option: option, length: length, data: data, isEnding: isEnding, into: &out)
      guard send(out.bytes, until: deadline) else { return nil }
      switch outcome {
      case .again: continue
      case .close: return nil
      case .transmit(let session): return session
      }
    }
    return nil
  }

  /// The next `count` bytes, at most as many as the input holds, once they are all there.
  private func take(
    _ count: Int, _ input: inout InputStream, until deadline: Deadline
  ) -> ByteRegion? {
    while input.available < count {
      guard receiveMore(&input, until: deadline) else { return nil }
    }
    return input.take(count)
  }

  private func drain(_ count: Int, _ input: inout InputStream, until deadline: Deadline) -> Bool {
    var left = count
    while left > 0 {
      if input.available == 0, !receiveMore(&input, until: deadline) { return false }
      left -= input.skip(left)
    }
    return true
  }

  private func receiveMore(_ input: inout InputStream, until deadline: Deadline) -> Bool {
    while !deadline.hasPassed {
      // Looked at before the socket: what had arrived by then is still answered.
      let isLast = isEnding
      switch socket.receive(into: input.free()) {
      case .bytes(let count):
        input.received(count)
        received.wrappingAdd(UInt64(count), ordering: .relaxed)
        return true
      case .ended: return false
      case .wouldBlock:
        guard !isLast else { return false }
        _ = socket.wait(.readable, with: mailbox.bell, until: deadline)
      }
    }
    return false
  }

  private func send(_ bytes: [UInt8], until deadline: Deadline) -> Bool {
    let region = AlignedBuffer(bytes).region
    var done = 0
    while done < region.count {
      switch socket.send(region.slice(done, region.count - done)) {
      case .bytes(let count):
        done += count
        sent.wrappingAdd(UInt64(count), ordering: .relaxed)
      case .ended: return false
      case .wouldBlock:
        // A client that takes its answers slowly is not waited for when the server goes.
        guard !isEnding, !deadline.hasPassed else { return false }
        _ = socket.wait(.writable, with: mailbox.bell, until: deadline)
      }
    }
    return true
  }
}
