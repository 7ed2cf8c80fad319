internal import PloopIO
internal import Synchronization

/// Whether the disk may be written: not before its index has been checked, and not any more once a sync has failed.
/// Either way it goes on reading. Whoever wants to write waits for the check, and is told of the failure until the disk
/// is attached again.
final class Condition: Sendable {
  private struct State {
    var isChecked: Bool
    var reason: String?
  }

  private let mayBeWritten: Atomic<Bool>
  private let state: Monitor<State>

  /// - Parameter isChecked: false where ``endCheck(_:)`` is to follow.
  init(isChecked: Bool = true) {
    mayBeWritten = Atomic(isChecked)
    state = Monitor(State(isChecked: isChecked))
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
  }

  /// The index has been checked.
  ///
  /// - Parameter fault: what is wrong with it, if anything: it is not written then.
  func endCheck(_ fault: String?) {
    state.update { state in
      state.isChecked = true
      state.reason = state.reason ?? fault
      mayBeWritten.store(state.reason == nil, ordering: .sequentiallyConsistent)
    }
  }

  /// Returns when the index has been checked, whatever has been found.
  ///
  /// - Returns: false when the deadline has passed before.
  @discardableResult
  func awaitCheck(until deadline: Deadline = .never) -> Bool {
    state.wait(until: deadline) { $0.isChecked ? true : nil } ?? false
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
    guard let failure else { return }
    throw DeviceError(.degraded, failure)
  }
}
