package import PloopIO

/// A file of bounded size into which a backup saves old clusters, each in a place of its own.
///
/// It has no name any more when it is used: whatever ends the process, nothing of it is left.
package final class Scratch: Sendable {
  private struct State {
    var used = Bitmap(count: 0)
    /// A write found no room on the host's disk; until something is given back none is tried.
    var isFull = false
  }

  /// Most bytes that it takes.
  package let limitBytes: UInt64
  private let clusterBytes: UInt64
  private let file: ImageFile
  private let state = Locked(State())

  /// Makes a file and removes its name.
  ///
  /// - Throws: EEXIST where something has that name.
  package init(
    _ name: String, in folder: ImageFolder, clusterBytes: UInt64, limitBytes: UInt64
  ) throws(IOError) {
    self.clusterBytes = clusterBytes
    self.limitBytes = limitBytes
    file = try folder.create(name, mode: 0o600)
    try folder.unlink(name)
  }

  private var slots: Int { Int(clamping: limitBytes / clusterBytes) }

  var hasRoom: Bool {
    state.withLock { !$0.isFull && ($0.used.count < slots || $0.used.firstClear(from: 0) != nil) }
  }

  /// - Returns: nil when there is no room.
  func take() -> Int? {
    state.withLock { state in
      guard !state.isFull else { return nil }
      let slot = state.used.firstClear(from: 0) ?? state.used.count
      guard slot < slots else { return nil }
      if slot == state.used.count { state.used.resize(to: slot + 1) }
      state.used[slot] = true
      return slot
    }
  }

  func give(_ slots: [Int]) {
    state.withLock { state in
      for slot in slots where slot < state.used.count { state.used[slot] = false }
      state.isFull = false
    }
  }

  /// Gives a place back that could not be filled.
  func giveUp(_ slot: Int) {
    state.withLock { state in
      state.used[slot] = false
      state.isFull = true
    }
  }

  func write(_ region: ByteRegion, slot: Int, offset: UInt64) throws(IOError) {
    try file.write(region, at: UInt64(slot) * clusterBytes + offset)
  }

  func read(into region: ByteRegion, slot: Int, offset: UInt64) throws(IOError) {
    try file.readOrZero(into: region, at: UInt64(slot) * clusterBytes + offset)
  }

  /// Gives its space back: nobody needs what it holds.
  func clear() { try? file.truncate(to: 0) }
}
