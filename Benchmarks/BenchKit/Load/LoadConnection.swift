internal import Glibc
internal import PloopIO

/// One connection of a load, on one thread: many requests a send, many replies a receive.
///
/// It is lean so that the server is what is measured: raw memory, no allocation for a request, two
/// readings of the clock a round. It polls both ways, because a client that only sends and a server
/// that only sends wait for each other for ever.
struct LoadConnection: ~Copyable {
  struct Outcome: Sendable {
    var operations: UInt64 = 0
    var bytes: UInt64 = 0
    var latencies = Histogram()
    var units = UnitCounts()
    /// Nanoseconds on the monotonic clock when the last reply had come.
    var end: UInt64 = 0
    var failure: BenchFailure?
  }

  struct Slot {
    var offset: UInt64
    var start: UInt64
    var reads: Bool
    var isBusy: Bool
  }

  private let client: NBDClient
  private let socket: Int32
  let structuredReplies: Bool
  let job: LoadJob
  var plan: RequestPlan
  let slots: UnsafeMutablePointer<Slot>
  let free: UnsafeMutablePointer<Int>
  var freeCount: Int

  /// Requests on their way out. A long payload is made piece by piece as there is room for it, so
  /// that the buffer stays in the processor's cache.
  private let out: UnsafeMutableRawPointer
  private static let outBytes = 256 << 10
  private var outStart = 0
  private var outEnd = 0
  private var writeLeft = 0
  private var writeOffset: UInt64 = 0

  /// Received and not yet understood: `incoming + inStart` up to `inEnd`.
  let incoming: UnsafeMutableRawPointer
  private static let incomingBytes = 256 << 10
  var inStart = 0
  var inEnd = 0
  /// The reply whose payload is being received; -1 between replies.
  var payloadSlot = -1
  var payloadLeft = 0
  var payloadOffset: UInt64 = 0
  var isLastChunk = false

  var latencies = Histogram()
  var units: UnitCounts
  var operations: UInt64 = 0
  var now: UInt64 = 0

  init(_ client: NBDClient, _ job: LoadJob, index: Int) {
    self.client = client
    socket = client.socket.number
    structuredReplies = client.structuredReplies
    self.job = job
    plan = RequestPlan(job, connection: index)
    slots = .allocate(capacity: job.depth)
    slots.initialize(
      repeating: Slot(offset: 0, start: 0, reads: false, isBusy: false), count: job.depth)
    free = .allocate(capacity: job.depth)
    for slot in 0..<job.depth { free[slot] = slot }
    freeCount = job.depth
    out = .allocate(byteCount: LoadConnection.outBytes, alignment: 4096)
    incoming = .allocate(byteCount: LoadConnection.incomingBytes, alignment: 4096)
    units = UnitCounts()
  }

  deinit {
    slots.deallocate()
    free.deallocate()
    out.deallocate()
    incoming.deallocate()
  }

  /// Runs the job to its end, all replies taken.
  mutating func run(until end: UInt64) -> Outcome {
    var outcome = Outcome()
    do throws(BenchFailure) {
      now = monotonicNanoseconds()
      while true {
        refill(until: end)
        if freeCount == job.depth { break }
        try sendWhatFits()
        try receive()
        now = monotonicNanoseconds()
        try takeReplies()
      }
      disconnect()
    } catch { outcome.failure = error }
    outcome.end = now
    outcome.operations = operations
    outcome.bytes = operations * UInt64(job.blockBytes)
    outcome.latencies = latencies
    outcome.units = units
    return outcome
  }

  /// Asks for as much as the depth allows and takes nothing, until `end`.
  mutating func stall(until end: UInt64) -> Outcome {
    now = monotonicNanoseconds()
    refill(until: end)
    var outcome = Outcome()
    do throws(BenchFailure) { try sendWhatFits() } catch { outcome.failure = error }
    while monotonicNanoseconds() < end {
      poll(nil, 0, Int32(min(100, max(1, (end &- monotonicNanoseconds()) / 1_000_000))))
    }
    outcome.end = end
    return outcome
  }

  private mutating func refill(until end: UInt64) {
    if outStart == outEnd { (outStart, outEnd) = (0, 0) }
    while true {
      if writeLeft > 0 {
        let part = min(writeLeft, LoadConnection.outBytes &- outEnd) & ~7
        guard part > 0 else { return }
        Content.fill(out + outEnd, count: part, offset: writeOffset, stamp: job.stamp)
        outEnd &+= part
        writeOffset &+= UInt64(part)
        writeLeft &-= part
        continue
      }
      // One at least, however late it is when the machine has time for us.
      let isFirst = operations == 0 && freeCount == job.depth
      guard freeCount > 0, !plan.isDone, now < end || isFirst,
        outEnd &+ NBDWire.requestBytes <= LoadConnection.outBytes
      else { return }
      let (offset, reads) = plan.next()
      // What comes of a read beside a write of the same place, nobody can say.
      if job.kind == .mix, isInFlight(offset) {
        plan.takeBack()
        return
      }
      freeCount &-= 1
      let slot = free[freeCount]
      slots[slot] = Slot(offset: offset, start: now, reads: reads, isBusy: true)
      NBDWire.put(
        out + outEnd, command: command(reads: reads), cookie: UInt64(slot), offset: offset,
        length: UInt32(job.blockBytes))
      outEnd &+= NBDWire.requestBytes
      guard !reads, job.kind == .write || job.kind == .mix else { continue }
      (writeLeft, writeOffset) = (job.blockBytes, offset)
    }
  }

  private func isInFlight(_ offset: UInt64) -> Bool {
    for slot in 0..<job.depth where slots[slot].isBusy && slots[slot].offset == offset {
      return true
    }
    return false
  }

  private func command(reads: Bool) -> UInt16 {
    switch job.kind {
    case .read, .stall: NBDWire.Command.read
    case .write: NBDWire.Command.write
    case .mix: reads ? NBDWire.Command.read : NBDWire.Command.write
    case .zeroes: NBDWire.Command.writeZeroes
    case .trim: NBDWire.Command.trim
    }
  }

  /// Says goodbye; a server that is gone already does not matter.
  private func disconnect() {
    NBDWire.put(out, command: NBDWire.Command.disconnect, cookie: 0, offset: 0, length: 0)
    _ = send(socket, out, NBDWire.requestBytes, Int32(MSG_NOSIGNAL))
  }

  private mutating func sendWhatFits() throws(BenchFailure) {
    guard outStart < outEnd else { return }
    let count = send(
      socket, out + outStart, outEnd - outStart,
      Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
    if count >= 0 {
      outStart &+= count
    } else if errno != EAGAIN && errno != EINTR {
      throw BenchFailure(IOError.last("send", "socket").description)
    }
  }

  /// Waits for something to read, or, while requests are left to send, for room to send them.
  private mutating func receive() throws(BenchFailure) {
    if inStart > 0 {
      // What is left is less than a unit and a header.
      memmove(incoming, incoming + inStart, inEnd - inStart)
      (inStart, inEnd) = (0, inEnd - inStart)
    }
    let isStuck = outStart < outEnd
    let hasMore = isStuck || writeLeft > 0
    let count = recv(
      socket, incoming + inEnd, LoadConnection.incomingBytes - inEnd,
      hasMore ? Int32(MSG_DONTWAIT) : 0)
    if count > 0 {
      inEnd &+= count
      return
    }
    guard count < 0 else { throw BenchFailure("the server hung up") }
    if errno == EINTR { return }
    guard errno == EAGAIN else {
      throw BenchFailure(IOError.last("recv", "socket").description)
    }
    guard hasMore else { throw BenchFailure("no reply within 60 s") }
    guard isStuck else { return }
    var wanted = pollfd(
      fd: socket, events: Int16(POLLIN | POLLOUT), revents: 0)
    guard poll(&wanted, 1, 60_000) != 0 else { throw BenchFailure("no progress within 60 s") }
  }
}
