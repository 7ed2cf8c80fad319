internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

/// How states are chosen.
package struct Bounds: Sendable {
  /// States that are looked at behind each event and by each size of blocks, no more.
  package var samples: Int
  package var seed: UInt64

  package init(samples: Int, seed: UInt64) {
    self.samples = samples
    self.seed = seed
  }
}

/// How many states are wanted of all recordings together, and how many different contents.
package final class Goal: Sendable {
  private let wanted: (states: Int, distinct: Int)
  private let counted = Locked<(states: Int, distinct: Int)>((0, 0))

  package init(states: Int = .max, distinct: Int = .max) { wanted = (states, distinct) }

  fileprivate func count(isNew: Bool) {
    counted.withLock { counted in
      counted.states += 1
      if isNew { counted.distinct += 1 }
    }
  }

  package var isReached: Bool {
    counted.withLock { $0.states >= wanted.states && $0.distinct >= wanted.distinct }
  }
}

/// Which states of one recording have been looked at, and which of its images QEMU has judged. It lasts for all
/// recordings of the same steps, so that each further one looks at what is new.
package final class Looks: Sendable {
  private struct State {
    var contents: Set<UInt64> = []
    var isOnlyForNew = false
    var images: Set<UInt64> = []
    var judged = 0
    /// Images that may be judged in this recording, how many were before it, and how many may have been by now.
    var limit = 0
    var before = 0
    var allowed = 0
  }

  private let state = Locked(State())
  private let goal: Goal

  /// - Parameter goal: what several recordings come to together.
  package init(_ goal: Goal = Goal()) { self.goal = goal }

  /// Whether no more states are wanted, of a recording of which all moments have been looked at before.
  var isEnough: Bool { state.withLock { $0.isOnlyForNew } && goal.isReached }

  /// Different contents of the states that were looked at.
  package var distinct: Int { state.withLock { $0.contents.count } }
  /// Images that `qemu-img check` has judged, no two of them alike.
  package var judged: Int { state.withLock { $0.judged } }

  /// - Parameters:
  ///   - onlyNew: whether a content that has been there before is left out, wherever it was. Otherwise it is looked
  ///     at behind each event that leaves it, since more may be promised there.
  ///   - images: that QEMU judges, no more.
  package func begin(onlyNew: Bool, images: Int) {
    state.withLock { state in
      state.isOnlyForNew = onlyNew
      state.limit = images
      state.before = state.judged
      state.allowed = 0
    }
  }

  /// Images are judged all along the recording, not only at its beginning.
  func advance(to position: Int, of count: Int) {
    state.withLock { $0.allowed = $0.limit * (position + 1) / max(1, count) }
  }

  func isWorthwhile(_ digest: UInt64) -> Bool {
    let (isNew, isWanted) = state.withLock { state in
      let isNew = state.contents.insert(digest).inserted
      return (isNew, isNew || !state.isOnlyForNew)
    }
    if isWanted { goal.count(isNew: isNew) }
    return isWanted
  }

  /// Has `qemu-img check` look at an image that is closed, unless it has looked at the same before, or at enough.
  ///
  /// - Returns: what it says against it.
  func judge(_ name: String, in folder: ImageFolder) throws -> String? {
    guard state.withLock({ $0.judged - $0.before < $0.allowed }) else { return nil }
    let digest = StateNames.digest(of: try folder.bytes(of: name, limit: 64 << 20))
    let isWanted = state.withLock { state in
      guard state.judged - state.before < state.allowed, state.images.insert(digest).inserted else {
        return false
      }
      state.judged += 1
      return true
    }
    guard isWanted else { return nil }
    do {
      try QEMU.expectSound(
        "\(folder.path)/\(name)", status: try Looks.seemsToLeak(name, in: folder) ? 3 : 0)
      return nil
    } catch { return "\(error)" }
  }

  /// Whether QEMU 7.2 takes what an image needs for clusters that nobody references: those of a format extension, and
  /// in an empty image those of a header behind its first cluster.
  private static func seemsToLeak(_ name: String, in folder: ImageFolder) throws -> Bool {
    let check = try ImageCheck(try folder.open(name, writable: false))
    if case .good = check.formatExtension { return true }
    return check.mappedClusters == 0 && check.geometry.headerClusters > 1
  }
}
