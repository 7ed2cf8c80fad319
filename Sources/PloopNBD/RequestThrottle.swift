package import PloopIO
internal import Synchronization

/// How fast the clients of a disk may go, all of them together. A request that cannot begin yet is given a turn, behind
/// those of all who asked before, and waits for it unread; so each connection has at most one, and whoever asks for
/// more than others waits as often as they do. An unlimited disk pays one load and one branch a request.
package final class RequestThrottle: Sendable {
  /// When a connection's next request may begin. It is paid for when it is given this, and not again however often it
  /// is looked at.
  struct Turn {
    /// Whether the request has been told that it may begin.
    fileprivate(set) var hasCome = false
    fileprivate var reads = ThrottleLane.Place()
    fileprivate var writes = ThrottleLane.Place()
    /// What the request that has begun last was charged for, or is to be in pieces.
    fileprivate var paidBytes: UInt64 = 0

    /// The request has begun: the next one is told by itself.
    mutating func next() { hasCome = false }
  }

  /// Requests that had to wait before they began, and for how long, all together.
  package struct Waits: Sendable, Equatable {
    package var count: UInt64 = 0
    package var nanoseconds: UInt64 = 0
  }

  private struct Lanes {
    var reads: ThrottleLane
    var writes: ThrottleLane
  }

  private let isOn = Atomic<Bool>(false)
  private let lanes: Locked<Lanes>
  private let clock: @Sendable () -> UInt64

  /// - Parameters:
  ///   - rates: nil for no limits.
  ///   - clock: nanoseconds that never go back.
  package init(
    _ rates: TransferRates?, clock: @escaping @Sendable () -> UInt64 = monotonicNanoseconds
  ) {
    let now = clock()
    self.clock = clock
    lanes = Locked(Lanes(reads: ThrottleLane(now), writes: ThrottleLane(now)))
    change(rates)
  }

  /// Since the disk was attached.
  package var waits: (reads: Waits, writes: Waits) {
    lanes.withLock { ($0.reads.waits, $0.writes.waits) }
  }

  /// Whether there are limits.
  var isLimiting: Bool { isOn.load(ordering: .relaxed) }

  /// From now on, also for those who wait; nil for no limits. What has begun is paid for all the same.
  package func change(_ rates: TransferRates?) {
    let (now, new) = (clock(), rates ?? TransferRates())
    let bells = lanes.withLock { lanes in
      let bells =
        lanes.reads.change(
          bytesPerSecond: new.readBytes, operationsPerSecond: new.readOperations,
          burstSeconds: new.burstSeconds, now)
        + lanes.writes.change(
          bytesPerSecond: new.writeBytes, operationsPerSecond: new.writeOperations,
          burstSeconds: new.burstSeconds, now)
      // Who is not asked for a turn takes none from the line.
      return new.isUnlimited ? lanes.reads.clear(now) + lanes.writes.clear(now) : bells
    }
    isOn.store(!new.isUnlimited, ordering: .relaxed)
    bells.forEach { $0.ring() }
  }

  /// Asks for the request's turn, and again whether it has come.
  ///
  /// - Parameter bell: rung when it may have come sooner than it was told.
  /// - Returns: 0 once the request may begin, otherwise after how many nanoseconds it may.
  func delay(of request: Request, _ turn: inout Turn, bell: Bell? = nil) -> UInt64 {
    guard !turn.hasCome else { return 0 }
    guard isLimiting, request.isLimited else {
      turn.hasCome = true
      turn.paidBytes = 0
      return 0
    }
    let now = clock()
    let delay = lanes.withLock { lanes in
      request.countsAsWrite
        ? lanes.writes.delay(request.costBytes, of: &turn.writes, bell: bell, now)
        : lanes.reads.delay(request.costBytes, of: &turn.reads, bell: bell, now)
    }
    turn.hasCome = delay == 0
    turn.paidBytes = request.costBytes
    return delay
  }

  /// Of a request that does not begin: nobody pays for what is not done.
  func giveBack(_ turn: inout Turn) {
    let now = clock()
    let bells = lanes.withLock { lanes in
      lanes.reads.giveBack(&turn.reads, now) + lanes.writes.giveBack(&turn.writes, now)
    }
    bells.forEach { $0.ring() }
  }

  /// Has a request begin that cannot wait for its turn: those who come later wait for it all the same.
  func skipTurn(of request: Request, _ turn: inout Turn) {
    giveBack(&turn)
    let now = clock()
    lanes.withLock { lanes in
      if request.countsAsWrite {
        lanes.writes.charge(request.costBytes, now)
      } else {
        lanes.reads.charge(request.costBytes, now)
      }
    }
    turn.hasCome = true
    turn.paidBytes = request.costBytes
  }

  /// Of the WRITE that has begun last, whose connection is over: so many bytes of its payload have never come.
  func giveBack(_ byteCount: Int, of turn: inout Turn) {
    let count = min(UInt64(clamping: byteCount), turn.paidBytes)
    guard count > 0 else { return }
    turn.paidBytes -= count
    let now = clock()
    let bells = lanes.withLock { $0.writes.giveBack(count, of: &turn.writes, now) }
    bells.forEach { $0.ring() }
  }

  /// The connection is over: its next request does not begin, and what it owes for the others is not forgotten.
  func leave(_ turn: inout Turn) {
    let now = clock()
    let bells = lanes.withLock { lanes in
      lanes.reads.leave(&turn.reads, now) + lanes.writes.leave(&turn.writes, now)
    }
    bells.forEach { $0.ring() }
  }

  /// For how long a request would wait that came now, in nanoseconds.
  func delayOfNext(isWrite: Bool) -> UInt64 {
    let now = clock()
    return lanes.withLock { isWrite ? $0.writes.instant(now) : $0.reads.instant(now) } - now
  }
}

extension Request {
  /// The most that one request is counted as, in bytes: CACHE may be for a whole disk.
  private static let mostBytes: UInt64 = 64 << 20

  /// What makes writes durable waits for nothing: whoever waits for it has paid for the writes.
  fileprivate var isLimited: Bool { type != Command.flush }

  var countsAsWrite: Bool {
    switch type {
    case Command.read, Command.cache, Command.blockStatus: false
    default: true
    }
  }

  /// What only looks at maps, or changes them, has no bytes, however long it is.
  fileprivate var costBytes: UInt64 {
    switch type {
    case Command.read, Command.write, Command.cache: min(length, Request.mostBytes)
    default: 0
    }
  }
}
