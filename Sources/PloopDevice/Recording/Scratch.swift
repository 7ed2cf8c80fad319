internal import PloopFormat
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

extension PushBackup {
  /// Saves what is held of a range, so that it may be overwritten.
  ///
  /// - Returns: false when there is no scratch file, or no room in it.
  func save(_ clusters: ClosedRange<Int>) -> Bool {
    guard let scratch = options.scratch else { return false }
    while case .save(let cluster)? = state.wait({ $0.takeTurn(clusters) }) {
      do throws(DeviceError) {
        guard try save(cluster, scratch) else {
          state.update { $0.giveUpTurn(cluster) }
          return false
        }
      } catch {
        state.update { $0.giveUpTurn(cluster) }
        end(.failed("cluster \(cluster) cannot be saved: \(error.detail)"))
      }
    }
    return true
  }

  /// It is held until its bytes are in the file: nobody changes what is read here.
  private func save(_ cluster: Int, _ scratch: Scratch) throws(DeviceError) -> Bool {
    let geometry = device.geometry
    let start = UInt64(cluster) << UInt64(geometry.clusterShift)
    let length = min(geometry.clusterBytes, geometry.sizeBytes - start)
    let run = try device.runs(offset: start, length: length, limit: 1).first
    guard run?.level != nil else {
      _ = state.update { $0.saved(cluster, at: nil, bytes: 0) }
      return true
    }
    guard let slot = scratch.take() else { return false }
    do throws(DeviceError) {
      let buffer = AlignedBuffer(count: Int(min(length, Device.copyBytes)))
      for offset in stride(from: 0, to: length, by: buffer.count) {
        let part = buffer.region.slice(0, Int(min(UInt64(buffer.count), length - offset)))
        var holes = HoleList()
        try device.read(into: part, at: start + offset, holes: &holes)
        try converting { () throws(IOError) in
          try scratch.write(part, slot: slot, offset: offset)
        }
      }
    } catch {
      guard case .outOfSpace = error.kind else {
        scratch.give([slot])
        throw error
      }
      scratch.giveUp(slot)
      return false
    }
    let isWanted = state.update { $0.saved(cluster, at: slot, bytes: length) }
    if !isWanted { scratch.give([slot]) }
    return true
  }
}
