internal import PloopIO

/// Of which disks that were handed over the other side is being told, and which of them somebody takes back
/// (docs/crash-safety.md, "A disk is handed over", 8): never both at a time.
final class Tellings: Sendable {
  private struct State {
    var telling: Set<String> = []
    /// How many want a disk back.
    var wanted: [String: Int] = [:]
  }

  private let state = Monitor(State())

  /// Call in the device's turn, where it is seen that nobody has taken the disk back.
  ///
  /// - Returns: false when somebody is about to.
  func begin(_ device: String) -> Bool {
    state.update { state in
      guard state.wanted[device] == nil else { return false }
      state.telling.insert(device)
      return true
    }
  }

  func end(_ device: String) { state.update { _ = $0.telling.remove(device) } }

  /// From now on, and until ``leave(_:)``, nobody begins to tell.
  func want(_ device: String) { state.update { $0.wanted[device, default: 0] += 1 } }

  func leave(_ device: String) {
    state.update { state in
      let count = (state.wanted[device] ?? 1) - 1
      state.wanted[device] = count > 0 ? count : nil
    }
  }

  func isWanted(_ device: String) -> Bool { state.withLock { $0.wanted[device] != nil } }

  /// Waits until whoever has begun to tell is done with it.
  func awaitEnd(_ device: String, until deadline: Deadline) {
    _ = state.wait(until: deadline) { $0.telling.contains(device) ? nil : true }
  }

  /// Call in the device's turn before it is taken back.
  ///
  /// - Throws: `device-busy` while the other side is being told.
  func requireNone(of device: String) throws(ServiceError) {
    guard state.withLock({ $0.telling.contains(device) }) else { return }
    throw ServiceError(
      .deviceBusy, "the other side is being told just now that \(device) is its own",
      remedy: "ask again in a moment, and look what the other side has by then", errno: "EBUSY")
  }
}
