internal import PloopIO
internal import Synchronization

/// What every request passes before it looks at the map, and leaves after its last byte.
///
/// A chain change closes the gate: new requests wait, admitted ones drain. The gate also tells when
/// every request that was admitted before some moment has left, without stopping anybody: requests
/// are counted under one of two parities, and the parity turns only when the other one has drained
/// (a grace period, as in read-copy-update). Everything is one atomic word:
///
///     bits 0-28   requests inside that were admitted under parity 0
///     bits 29-57  the same for parity 1
///     bit 58      somebody waits until nobody is left of the other parity
///     bit 59      somebody has been admitted since the gate was made
///     bit 60      the parity under which requests are admitted now
///     bit 61      closed: nobody is admitted, waiters wait
///     bit 62      shut: nobody is admitted any more, waiters give up
final class Gate: Sendable {
  /// What a request holds while it is inside.
  struct Pass: Sendable {
    fileprivate let unit: UInt64
  }

  private static let shift: UInt64 = 29
  private static let mask: UInt64 = (1 << 29) - 1
  private static let counts: UInt64 = (1 << 58) - 1
  private static let awaited: UInt64 = 1 << 58
  private static let used: UInt64 = 1 << 59
  private static let parity: UInt64 = 1 << 60
  private static let closed: UInt64 = 1 << 61
  private static let shut: UInt64 = 1 << 62

  private let state = Atomic<UInt64>(0)
  private let turns = Atomic<UInt64>(0)
  /// Held from a turn until it is counted: ``grace`` allows for one that is not, and the allocators of an
  /// old top and a new one may both want to turn.
  private let turning = Locked(())
  private let waiters = Monitor(Waiting())
  /// Pages that requests have left behind in sockets.
  let loans: PageLoans
  /// The same, used without counting references to it.
  private let borrowedLoans: Borrowed<PageLoans>

  init() {
    loans = PageLoans()
    borrowedLoans = Borrowed(loans)
  }

  private struct Waiting {
    /// What waits without a thread.
    var kept: [@Sendable () -> Void] = []
    /// How many wait until nobody is left of the other parity.
    var awaiting = 0
  }

  /// Enters, waiting while the gate is closed.
  ///
  /// - Returns: nil when the gate has been shut for good.
  func enter() -> Pass? {
    while true {
      if let pass = enterNow() { return pass }
      let open: Bool? = waiters.wait { _ in
        let state = self.state.load(ordering: .acquiring)
        if state & Gate.shut != 0 { return false }
        return state & Gate.closed == 0 ? true : nil
      }
      guard open == true else { return nil }
    }
  }

  /// Enters if the gate is open.
  func enterNow() -> Pass? {
    var old = state.load(ordering: .relaxed)
    while old & (Gate.closed | Gate.shut) == 0 {
      let unit: UInt64 = old & Gate.parity == 0 ? 1 : 1 << Gate.shift
      let (exchanged, current) = state.weakCompareExchange(
        expected: old, desired: (old + unit) | Gate.used, successOrdering: .acquiring,
        failureOrdering: .relaxed)
      if exchanged { return Pass(unit: unit) }
      old = current
    }
    return nil
  }

  /// Keeps `work` until the gate opens or is shut for good, for callers who have better to do than
  /// to wait: it is called then, and must not wait itself.
  ///
  /// - Returns: false, with nothing kept, when the gate is not closed; it may be a moment later.
  func keep(_ work: @escaping @Sendable () -> Void) -> Bool {
    guard isClosed else { return false }
    return waiters.withLock { waiting in
      guard state.load(ordering: .acquiring) & (Gate.closed | Gate.shut) == Gate.closed else {
        return false
      }
      waiting.kept.append(work)
      return true
    }
  }

  /// Has everybody who waits look again.
  private func callWaiters() {
    let kept = waiters.update { waiting -> [@Sendable () -> Void] in
      defer { waiting.kept = [] }
      return waiting.kept
    }
    kept.forEach { $0() }
  }

  func leave(_ pass: Pass) {
    let new = state.wrappingSubtract(pass.unit, ordering: .acquiringAndReleasing).newValue
    guard new & (Gate.closed | Gate.awaited) != 0 else { return }
    if new & Gate.counts == 0 || new & Gate.awaited != 0 && Gate.others(new) == 0 {
      waiters.update { _ in }
    }
  }

  /// Closes the gate and waits until everybody who was inside has left.
  ///
  /// - Returns: false when the deadline came first; the gate is open again then.
  func close(until deadline: Deadline) -> Bool {
    state.bitwiseOr(Gate.closed, ordering: .acquiringAndReleasing)
    let drained: Bool? = waiters.wait(until: deadline) { _ in
      self.state.load(ordering: .acquiring) & Gate.counts == 0 ? true : nil
    }
    if drained == nil { open() }
    return drained != nil
  }

  /// For how long a gate that ``closeGently(until:failed:)`` closes keeps everybody waiting for one who is
  /// slow: half a millisecond, in microseconds, and a part of the time that it has tried already.
  private static let patience = (leastMicroseconds: 500, part: 32)

  /// Closes the gate as ``close(until:)`` does, but nobody has to wait for long because somebody inside
  /// is slow, in a flush or at a disk that is: then it opens again until whoever was inside has left, and
  /// closes once more. Where somebody always is slow, the gate stays closed longer with time, and behind
  /// half of the time that there is until all have left, so that it comes to an end.
  ///
  /// - Parameter failed: called for each time that it was closed in vain, with the nanoseconds.
  /// - Returns: since when it is closed, in nanoseconds on the monotonic clock; nil when the deadline came
  ///   first, and the gate is open then.
  func closeGently(until deadline: Deadline, failed: (UInt64) -> Void) -> UInt64? {
    let begun = monotonicNanoseconds()
    let half = deadline.half
    while true {
      let start = monotonicNanoseconds()
      let tried = Int(clamping: (start - begun) / 1000)
      let patience = Deadline.after(
        microseconds: max(Gate.patience.leastMicroseconds, tried / Gate.patience.part))
      if close(until: half.hasPassed ? deadline : patience.orEarlier(deadline)) { return start }
      failed(monotonicNanoseconds() - start)
      guard !deadline.hasPassed else { return nil }
      _ = awaitLeavers(until: half.hasPassed ? deadline : half)
    }
  }

  func open() {
    state.bitwiseAnd(~Gate.closed, ordering: .acquiringAndReleasing)
    callWaiters()
  }

  /// Turns everybody away from now on; the gate has to be closed.
  func shutForGood() {
    state.bitwiseOr(Gate.shut, ordering: .acquiringAndReleasing)
    callWaiters()
  }

  var isClosed: Bool { state.load(ordering: .acquiring) & (Gate.closed | Gate.shut) != 0 }

  var isShut: Bool { state.load(ordering: .acquiring) & Gate.shut != 0 }

  /// Whether any request has ever been inside.
  var hasAdmitted: Bool { state.load(ordering: .acquiring) & Gate.used != 0 }

  /// Requests inside now.
  var occupancy: UInt64 {
    let state = self.state.load(ordering: .relaxed)
    return (state & Gate.mask) + (state >> Gate.shift & Gate.mask)
  }

  /// Whoever was inside when ``generation`` was `n` has left once it is `n + grace`: two turns drain
  /// both parities, and the one that was happening may not have been counted yet.
  static let grace: UInt64 = 3

  /// How many turns of the parity were counted. What its caller changed before is seen by everybody
  /// who enters after the next turn.
  var generation: UInt64 {
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    return turns.load(ordering: .acquiring)
  }

  /// Turns the parity if nobody is left from before the last turn.
  func turn() { turning.withLock { _ in turnAndCount() } }

  private func turnAndCount() {
    var old = state.load(ordering: .acquiring)
    while true {
      guard Gate.others(old) == 0 else { return }
      let (exchanged, current) = state.weakCompareExchange(
        expected: old, desired: old ^ Gate.parity, successOrdering: .acquiringAndReleasing,
        failureOrdering: .acquiring)
      if exchanged { break }
      old = current
    }
    turns.wrappingAdd(1, ordering: .acquiringAndReleasing)
  }

  /// Requests inside that were admitted before the last turn.
  private static func others(_ state: UInt64) -> UInt64 {
    state & parity == 0 ? state >> shift & mask : state & mask
  }

  /// Waits until everybody has left who is inside now, and stops nobody meanwhile.
  ///
  /// - Returns: false when the deadline came first.
  func awaitLeavers(until deadline: Deadline) -> Bool {
    let target = generation + Gate.grace
    while generation < target {
      guard awaitOthers(until: deadline) else { return false }
      turn()
    }
    return true
  }

  /// Notes that a page will be read by somebody who has left; the caller is inside.
  ///
  /// - Returns: what it is given back with.
  func lend() -> UInt64 {
    let ticket = generation
    borrowedLoans.use { $0.begin(ticket) }
    return ticket
  }

  /// So many of the pages that were lent with this ticket are not read any more.
  func takeBack(_ ticket: UInt64, count: UInt64) {
    borrowedLoans.use { $0.end(ticket, count: count) }
  }

  /// Waits until everybody has left who is inside now, and no client holds a page that was lent before:
  /// who was inside at generation `n` has lent under less than `n + grace`.
  ///
  /// - Returns: false when the deadline came first.
  func awaitHolders(until deadline: Deadline) -> Bool {
    let target = generation + Gate.grace
    return awaitLeavers(until: deadline) && loans.awaitReturn(before: target, until: deadline)
  }

  private func awaitOthers(until deadline: Deadline) -> Bool {
    waiters.withLock { waiting in
      waiting.awaiting += 1
      state.bitwiseOr(Gate.awaited, ordering: .acquiringAndReleasing)
    }
    defer {
      waiters.withLock { waiting in
        waiting.awaiting -= 1
        if waiting.awaiting == 0 {
          state.bitwiseAnd(~Gate.awaited, ordering: .acquiringAndReleasing)
        }
      }
    }
    return waiters.wait(until: deadline) { _ in
      Gate.others(self.state.load(ordering: .acquiring)) == 0 ? true : nil
    } ?? false
  }
}
