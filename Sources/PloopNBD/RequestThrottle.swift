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
    fileprivate var claim: Claim?
  }

  fileprivate struct Claim {
    /// On the monotonic clock, in nanoseconds.
    let instant: UInt64
    let bytes: UInt64
    let isWrite: Bool
    /// Of the limits that it was given by.
    let generation: UInt64
  }

  private struct Lane {
    private var bytes: Throttle
    private var operations: Throttle
    private var burstSeconds: UInt64 = 0
    private(set) var generation: UInt64 = 0

    init(_ now: UInt64) {
      bytes = Throttle(perSecond: 0, now: now)
      operations = Throttle(perSecond: 0, now: now)
    }

    /// Nothing that was taken at other limits counts: those who still wait ask again.
    mutating func change(
      bytesPerSecond: UInt64, operationsPerSecond: UInt64, burstSeconds: UInt64, _ now: UInt64
    ) {
      guard
        (bytes.perSecond, operations.perSecond, self.burstSeconds)
          != (bytesPerSecond, operationsPerSecond, burstSeconds)
      else { return }
      let burst = Double(burstSeconds)
      bytes = Throttle(perSecond: bytesPerSecond, burstSeconds: burst, now: now)
      operations = Throttle(perSecond: operationsPerSecond, burstSeconds: burst, now: now)
      self.burstSeconds = burstSeconds
      generation &+= 1
    }

    /// - Returns: when what has been taken before is paid for.
    mutating func take(_ count: UInt64, _ now: UInt64) -> UInt64 {
      let instant = now + max(bytes.wait(now: now), operations.wait(now: now))
      bytes.take(count, now: now)
      operations.take(1, now: now)
      return instant
    }

    mutating func giveBack(_ count: UInt64, _ now: UInt64) {
      bytes.giveBack(count, now: now)
      operations.giveBack(1, now: now)
    }
  }

  private struct Lanes {
    var reads: Lane
    var writes: Lane
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
    lanes = Locked(Lanes(reads: Lane(now), writes: Lane(now)))
    change(rates)
  }

  /// From now on; nil for no limits. Who waits already has to be woken (``Server/wakeClients(of:)``).
  package func change(_ rates: TransferRates?) {
    let (now, new) = (clock(), rates ?? TransferRates())
    lanes.withLock { lanes in
      lanes.reads.change(
        bytesPerSecond: new.readBytes, operationsPerSecond: new.readOperations,
        burstSeconds: new.burstSeconds, now)
      lanes.writes.change(
        bytesPerSecond: new.writeBytes, operationsPerSecond: new.writeOperations,
        burstSeconds: new.burstSeconds, now)
    }
    isOn.store(rates != nil, ordering: .relaxed)
  }

  /// Asks for the request's turn, and again whether it has come.
  ///
  /// - Returns: 0 once the request may begin, otherwise after how many nanoseconds it may.
  func delay(of request: Request, _ turn: inout Turn) -> UInt64 {
    guard isOn.load(ordering: .relaxed), !turn.hasCome, request.isLimited else {
      turn.hasCome = true
      return 0
    }
    let now = clock()
    let instant = lanes.withLock { lanes in
      let isWrite = request.countsAsWrite
      let generation = isWrite ? lanes.writes.generation : lanes.reads.generation
      if let claim = turn.claim, claim.generation == generation { return claim.instant }
      let bytes = request.costBytes
      let instant = isWrite ? lanes.writes.take(bytes, now) : lanes.reads.take(bytes, now)
      turn.claim = Claim(
        instant: instant, bytes: bytes, isWrite: isWrite, generation: generation)
      return instant
    }
    turn.hasCome = instant <= now
    return turn.hasCome ? 0 : instant - now
  }

  /// Of a request that does not begin: nobody pays for what is not done.
  func giveBack(_ turn: Turn) {
    guard !turn.hasCome, let claim = turn.claim else { return }
    let now = clock()
    lanes.withLock { lanes in
      if claim.isWrite, claim.generation == lanes.writes.generation {
        lanes.writes.giveBack(claim.bytes, now)
      } else if !claim.isWrite, claim.generation == lanes.reads.generation {
        lanes.reads.giveBack(claim.bytes, now)
      }
    }
  }
}

extension Request {
  /// The most that one request is counted as, in bytes: CACHE may be for a whole disk.
  private static let mostBytes: UInt64 = 64 << 20

  /// What makes writes durable waits for nothing: whoever waits for it has paid for the writes.
  fileprivate var isLimited: Bool { type != Command.flush }

  fileprivate var countsAsWrite: Bool {
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
