internal import PloopFormat
internal import PloopIO

extension Device {
  /// The disk is about to be larger, and its checkpoints with it: what lies behind the old end counts as
  /// written. It may be made larger once this returns; a crash in between leaves a file of checkpoints
  /// that is too large for its disk, which does no harm.
  ///
  /// The caller holds ``checkpointing``, and nobody is inside the gate.
  ///
  /// - Throws: with the checkpoints inconsistent, if they cannot be kept.
  func growCheckpoints(to bytes: UInt64) throws(DeviceError) {
    guard let old = recorder, bytes > old.diskBytes else { return }
    guard !old.checkpoints.isEmpty else {
      recorder = CheckpointRecorder(diskBytes: bytes, checkpoints: [])
      return
    }
    // Smaller regions than a disk of that size would have cost more syncs, and no bit.
    let rooms = CheckpointFile.rooms(
      forBitsOf: old.checkpoints.map(\.granularityShift), diskBytes: bytes)
    let grown = zip(old.checkpoints, rooms).map { $0.grown(to: bytes, hasRoom: $1) }
    guard
      let new = CheckpointRecorder(
        diskBytes: bytes, checkpoints: grown, regionShift: old.regionShift)
    else {
      return try old.spoil("the disk was made larger than a disk with checkpoints can be")
    }
    do throws(DeviceError) {
      let draft = try new.begin(beside: chain.top.source)
      try new.commit(
        draft, .open, chain: try stamps(chain.deltas.map(\.file)), checkpoints: grown)
    } catch {
      try old.spoil("they could not be kept when the disk was made larger: \(error)")
      throw error
    }
    let others = recorders.current.recorders.filter { $0 !== old }
    recorder = new
    recorders.replace(with: RecorderList(others))
    startRecording(grown)
  }
}
