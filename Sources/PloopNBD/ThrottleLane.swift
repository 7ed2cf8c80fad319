internal import PloopIO

/// One way, reads or writes: what flows in each second, and who waits for it, in the order in which they came.
///
/// Whoever waits has been charged, so that who comes later waits behind him. When somebody leaves the line, or the
/// limits are changed, all who wait are charged anew in their order: nobody who comes then is let in before them.
struct ThrottleLane {
  /// A request that is larger pays so much before it begins, and for the rest its connection takes turns of so much
  /// before its next request: between two of them everybody else has had one.
  static let quantumBytes: UInt64 = 1 << 20

  /// One connection's.
  struct Place {
    /// In the line; nil when it is not there.
    fileprivate var number: UInt64?
    /// Whether it waits, or has waited last, for its next request; otherwise for what it owes.
    fileprivate var isForNext = false
    /// For requests that have begun.
    fileprivate var owedBytes: UInt64 = 0
    /// When the next request was first told to wait; nil where it has not been.
    fileprivate var waitsSince: UInt64?
  }

  private struct Claim {
    let number: UInt64
    let bytes: UInt64
    let operations: UInt64
    let bell: Bell?
    let since: UInt64
    /// When what was taken before is paid for: on the monotonic clock, in nanoseconds.
    var instant: UInt64
  }

  private var bytes: Throttle
  private var operations: Throttle
  private var waiting: [Claim] = []
  /// Of requests that have begun since.
  private(set) var waits = RequestThrottle.Waits()
  private var lastNumber: UInt64 = 0

  init(_ now: UInt64) {
    bytes = Throttle(perSecond: 0, now: now)
    operations = Throttle(perSecond: 0, now: now)
  }

  /// When a request could begin that came now.
  mutating func instant(_ now: UInt64) -> UInt64 {
    now + max(bytes.wait(now: now), operations.wait(now: now))
  }

  /// - Parameters:
  ///   - cost: bytes of the connection's next request, the same each time that it is asked about.
  ///   - bell: rung when it may begin sooner than it was told.
  /// - Returns: 0 when it begins, otherwise after how many nanoseconds it may.
  mutating func delay(
    _ cost: UInt64, of place: inout Place, bell: Bell?, _ now: UInt64
  ) -> UInt64 {
    while true {
      if let number = place.number {
        let index = waiting.firstIndex { $0.number == number }
        if let index, waiting[index].instant > now { return waiting[index].instant - now }
        place.number = nil
        if let index {
          waiting.remove(at: index)
          if place.isForNext { return begin(&place, now) }
        } else {
          // The limits were lifted meanwhile: its wait is counted, and nothing was charged.
          place.waitsSince = nil
          if place.isForNext { place.owedBytes = 0 }
        }
      }
      place.isForNext = place.owedBytes == 0
      let piece = min(place.isForNext ? cost : place.owedBytes, ThrottleLane.quantumBytes)
      place.owedBytes = (place.isForNext ? cost : place.owedBytes) - piece
      let instant = self.instant(now)
      let count: UInt64 = place.isForNext ? 1 : 0
      take(piece, count, now)
      if instant > now {
        lastNumber &+= 1
        place.number = lastNumber
        let since = place.waitsSince ?? now
        place.waitsSince = since
        waiting.append(
          Claim(
            number: lastNumber, bytes: piece, operations: count, bell: bell, since: since,
            instant: instant))
      } else if place.isForNext {
        return begin(&place, now)
      }
    }
  }

  private mutating func begin(_ place: inout Place, _ now: UInt64) -> UInt64 {
    if let since = place.waitsSince.take() { count(since, now) }
    return 0
  }

  private mutating func count(_ since: UInt64, _ now: UInt64) {
    waits.count += 1
    waits.nanoseconds += now > since ? now - since : 0
  }

  /// Of a request that does not begin: nobody pays for what is not done.
  ///
  /// - Returns: the bells of those who may begin sooner by it.
  mutating func giveBack(_ place: inout Place, _ now: UInt64) -> [Bell] {
    place.waitsSince = nil
    guard place.isForNext, let number = place.number else { return [] }
    place.number = nil
    place.owedBytes = 0
    guard let index = waiting.firstIndex(where: { $0.number == number }) else { return [] }
    let claim = waiting.remove(at: index)
    return chargeAnew(now) { lane in
      lane.bytes.giveBack(claim.bytes, now: now)
      lane.operations.giveBack(claim.operations, now: now)
    }
  }

  /// Of the place's request, which has begun, so many bytes are not taken after all: what it still owes first.
  ///
  /// - Returns: the bells of those who may begin sooner by it.
  mutating func giveBack(_ byteCount: UInt64, of place: inout Place, _ now: UInt64) -> [Bell] {
    let owed = min(byteCount, place.owedBytes)
    place.owedBytes -= owed
    guard byteCount > owed else { return [] }
    return chargeAnew(now) { $0.bytes.giveBack(byteCount - owed, now: now) }
  }

  /// A request begins without a turn; who comes later waits for it all the same.
  mutating func charge(_ cost: UInt64, _ now: UInt64) { take(cost, 1, now) }

  /// The connection is over: what it owes is waited for by whoever comes.
  mutating func leave(_ place: inout Place, _ now: UInt64) -> [Bell] {
    let bells = giveBack(&place, now)
    if let number = place.number { waiting.removeAll { $0.number == number } }
    take(place.owedBytes, 0, now)
    place = Place()
    return bells
  }

  /// What has been taken is paid for by the new limits.
  mutating func change(
    bytesPerSecond: UInt64, operationsPerSecond: UInt64, burstSeconds: UInt64, _ now: UInt64
  ) -> [Bell] {
    let burst = Double(burstSeconds)
    return chargeAnew(now) { lane in
      lane.bytes.change(perSecond: bytesPerSecond, burstSeconds: burst, now: now)
      lane.operations.change(perSecond: operationsPerSecond, burstSeconds: burst, now: now)
    }
  }

  /// Nobody waits any more.
  mutating func clear(_ now: UInt64) -> [Bell] {
    for claim in waiting { count(claim.since, now) }
    defer { waiting = [] }
    return waiting.compactMap(\.bell)
  }

  private mutating func take(_ count: UInt64, _ operationCount: UInt64, _ now: UInt64) {
    bytes.take(count, now: now)
    operations.take(operationCount, now: now)
  }

  /// - Returns: the bells of those who may begin sooner by it, or now.
  private mutating func chargeAnew(
    _ now: UInt64, after body: (inout ThrottleLane) -> Void
  ) -> [Bell] {
    for claim in waiting {
      bytes.giveBack(claim.bytes, now: now)
      operations.giveBack(claim.operations, now: now)
    }
    body(&self)
    var bells: [Bell] = []
    for index in waiting.indices {
      let instant = instant(now)
      let isNews = instant < waiting[index].instant || instant == now
      if isNews, let bell = waiting[index].bell { bells.append(bell) }
      take(waiting[index].bytes, waiting[index].operations, now)
      waiting[index].instant = instant
    }
    return bells
  }
}
