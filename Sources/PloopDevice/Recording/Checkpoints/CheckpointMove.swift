internal import PloopFormat
internal import PloopIO

/// A checkpoint that is to begin at the instant of a snapshot.
package struct NewCheckpoint: Sendable {
  package let name: String
  let granularityShift: Int
  let createdAt: Double
  let request: String?

  /// - Parameters:
  ///   - granularityShift: log2 of the bytes that one bit stands for.
  ///   - createdAt: seconds since 1970, for people.
  ///   - request: what makes it, in 1 to 1024 bytes, so that whoever asks once more after a crash is known.
  package init(
    _ name: String, granularityShift: Int, createdAt: Double, request: String? = nil
  ) {
    self.name = name
    self.granularityShift = granularityShift
    self.createdAt = createdAt
    self.request = request
  }
}

/// The checkpoints of a disk while it gets a new top: whichever top a crash leaves has its file.
///
/// The file beside the new top is whole before a descriptor names that top, and both files get marks until
/// nobody needs the old one. Its caller holds `Device.checkpointing`.
struct CheckpointMove {
  private let device: Device
  private let recorder: CheckpointRecorder
  private let draft: CheckpointRecorder.Draft
  private let checkpoints: [Checkpoint]

  /// What the file of checkpoints beside an image is called.
  static func fileName(beside image: String) -> String { image + CheckpointFile.suffix }

  /// What a change of the top may leave beside either of the two: those of the one that is no top in
  /// the end are removed.
  static func leftovers(beside images: [String]) -> [String] {
    images.map(fileName).flatMap { [$0, "\($0).tmp"] }
  }

  /// - Returns: nil when there are no checkpoints, and none is to begin.
  /// - Throws: with everything as it was.
  init?(
    of device: Device, to top: DeltaSource, beginning new: NewCheckpoint?
  ) throws(DeviceError) {
    guard let recorder = device.recorder else {
      guard let new else { return nil }
      _ = try device.newCheckpoint(new)
      return nil
    }
    var checkpoints = recorder.checkpoints
    if let new {
      checkpoints.append(
        try device.newCheckpoint(new).1)
    }
    guard !checkpoints.isEmpty else { return nil }
    recorder.beginAnew()
    self.device = device
    self.recorder = recorder
    self.checkpoints = checkpoints
    draft = try recorder.begin(beside: top)
    do throws(DeviceError) {
      try recorder.commit(
        draft, .open, chain: try device.stamps(device.chain.deltas.map(\.file) + [top.file]),
        checkpoints: checkpoints)
    } catch {
      abandon()
      throw error
    }
  }

  /// The instant: the new top is the disk's. Nobody is inside the gate.
  func begin() {
    recorder.setCheckpoints(checkpoints)
    if recorder.isNeeded { device.startRecording(checkpoints) }
  }

  /// Nobody needs the old file.
  func finish() {
    recorder.finish(draft)
    for file in draft.replaced { try? file.remove() }
  }

  /// The disk has gone back to an old state: its checkpoints stay, and say nothing.
  ///
  /// - Parameters:
  ///   - old: the top of the state that was left; nothing happens if no checkpoints lie beside it.
  ///   - top: the new top, which no descriptor names yet.
  static func spoil(
    from old: String, to top: String, in folder: ImageFolder, _ words: String
  ) throws(DeviceError) {
    guard !old.contains("/"), folder.contains(fileName(beside: old)),
      let bytes = try? folder.bytes(of: fileName(beside: old), limit: CheckpointFile.byteLimit),
      var content = try? CheckpointFile.parse(bytes).file
    else { return }
    for index in content.checkpoints.indices {
      content.checkpoints[index].inconsistency =
        content.checkpoints[index].inconsistency ?? words
      content.checkpoints[index].bits = []
    }
    try converting { () throws(IOError) in
      try folder.replace(fileName(beside: top), with: content.encoded)
    }
  }

  /// The disk keeps its top.
  func abandon() {
    recorder.abandon(draft)
    try? draft.file.remove()
  }
}
