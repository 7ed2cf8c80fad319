internal import PloopIO
internal import Synchronization

/// Whether the disk may be written: not before its index has been checked, and not any more once a sync has failed.
/// Either way it goes on reading. Whoever wants to write waits for the check, and is told of the failure until the disk
/// is attached again.
final class Condition: Sendable {
  private struct State {
    var isChecked: Bool
    /// Whether the check has read everything, and is about to change what it was for.
    var isEnding = false
    /// Nobody wants to know any more.
    var isGivenUp = false
    var isCounted: Bool
    var reason: String?
    /// What waits for the check without a thread.
    var kept: [@Sendable () -> Void] = []
  }

  private let mayBeWritten: Atomic<Bool>
  private let state: Monitor<State>
  private let engine: IOEngine?
  private let failed: @Sendable () -> Void

  /// - Parameters:
  ///   - isChecked: false where ``endCheck(_:)`` is to follow.
  ///   - engine: whose threads may wait for that, beside those that are all disks'.
  ///   - failed: called when nothing is written any more, perhaps more than once.
  init(
    isChecked: Bool = true, engine: IOEngine? = nil,
    failed: @escaping @Sendable () -> Void = {}
  ) {
    self.engine = engine
    self.failed = failed
    mayBeWritten = Atomic(isChecked)
    state = Monitor(State(isChecked: isChecked, isCounted: isChecked))
  }

  var failure: String? { state.withLock { $0.reason } }

  /// False as well as long as the index is being checked.
  var isWritable: Bool { mayBeWritten.load(ordering: .acquiring) }

  /// The first reason stays.
  func degrade(_ words: String) {
    state.update { state in
      state.reason = state.reason ?? words
      mayBeWritten.store(false, ordering: .sequentiallyConsistent)
    }
    failed()
  }

  // MARK: The check of the index

  /// The index has been read: whoever gives the check up from now on waits for its end.
  ///
  /// - Returns: false when it was given up before; nothing is to be changed then.
  func endsReading() -> Bool {
    state.withLock { state in
      state.isEnding = !state.isGivenUp
      return state.isEnding
    }
  }

  /// The index has been checked.
  ///
  /// - Parameter fault: what is wrong with it, if anything: it is not written then.
  func endCheck(_ fault: String?) {
    state.update { state in
      guard !state.isGivenUp else { return }
      state.isChecked = true
      state.isCounted = state.isCounted || fault != nil
      state.reason = state.reason ?? fault
      mayBeWritten.store(state.reason == nil, ordering: .sequentiallyConsistent)
    }
    callWaiters()
  }

  /// Mapped clusters have been counted too.
  func endCount() { state.update { $0.isCounted = true } }

  /// Has the check not go on, nor the count behind it; where it has not ended nobody may write from now on. What is just
  /// being read ends by itself.
  ///
  /// - Returns: false when there is no check, or it has ended.
  func giveUpCheck() -> Bool {
    while true {
      guard let isGivenUp = state.wait({ Condition.giveUp(&$0) }) else { continue }
      // Who waits looks again.
      callWaiters()
      return isGivenUp
    }
  }

  /// The same for who does not wait: a check that has read everything goes on.
  func giveUpUnread() {
    state.withLock { _ = Condition.giveUp(&$0) }
    callWaiters()
  }

  /// - Returns: whether the check has been given up before its end; nil as long as that cannot be.
  private static func giveUp(_ state: inout State) -> Bool? {
    if state.isChecked {
      state.isCounted = true
      return state.isGivenUp
    }
    guard !state.isEnding else { return nil }
    (state.isGivenUp, state.isChecked, state.isCounted) = (true, true, true)
    return true
  }

  /// Has everybody look again who waits.
  private func callWaiters() {
    let kept = state.update { state -> [@Sendable () -> Void] in
      guard state.isChecked else { return [] }
      defer { state.kept = [] }
      return state.kept
    }
    kept.forEach { $0() }
  }

  /// Keeps `work` until the check has ended, for callers who have better to do than to wait: it is called then, and must
  /// not wait itself.
  ///
  /// - Returns: false, with nothing kept, when there is no check, or it has ended.
  func keep(_ work: @escaping @Sendable () -> Void) -> Bool {
    if isWritable { return false }
    return state.withLock { state in
      guard !state.isChecked else { return false }
      state.kept.append(work)
      return true
    }
  }

  var isChecked: Bool { isWritable || state.withLock { $0.isChecked } }

  var isGivenUp: Bool { state.withLock { $0.isGivenUp } }

  /// Whether the clusters have been counted, or nobody wants to know any more.
  var isCounted: Bool { state.withLock { $0.isCounted } }

  /// Returns when the index has been checked, whatever has been found.
  ///
  /// - Returns: false when the deadline has passed before.
  @discardableResult
  func awaitCheck(until deadline: Deadline = .never) -> Bool {
    if state.withLock({ $0.isChecked }) { return true }
    func wait() -> Bool { state.wait(until: deadline) { $0.isChecked ? true : nil } ?? false }
    return engine.map { $0.aside(wait) } ?? wait()
  }

  /// Waits for the check, if there is one.
  ///
  /// - Throws: `.degraded`.
  func requireWritable() throws(DeviceError) {
    if isWritable { return }
    awaitCheck()
    try requireSound()
  }

  /// Never waits: nothing is known that keeps the disk from being written.
  ///
  /// - Throws: `.degraded`.
  func requireSound() throws(DeviceError) {
    if let failure { throw DeviceError(.degraded, failure) }
    if isGivenUp { throw Device.isClosing }
  }
}
