internal import PloopFormat
package import PloopIO

extension Device {
  /// Oldest first.
  package var checkpoints: [Checkpoint] { recorder?.checkpoints ?? [] }

  package func checkpoint(_ name: String) throws(DeviceError) -> Checkpoint {
    guard let found = checkpoints.first(where: { $0.name == name }) else {
      throw DeviceError(.checkpoint(.missing), "the disk has no checkpoint \(name)")
    }
    return found
  }

  /// Begins to record what is written from one instant on.
  ///
  /// The order (docs/crash-safety.md, "Checkpoints"): a flush ahead; the new file exists; the gate is
  /// closed, and that is the instant; a flush of what it has; the new file counts.
  ///
  /// - Parameters:
  ///   - deadline: by when requests in flight have to end.
  ///   - instant: done at it; requests wait meanwhile.
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: with no checkpoint made, but if it is unknown which file a crash would leave: then
  ///   there may be one after the next attach.
  package func makeCheckpoint(
    _ request: NewCheckpoint, until deadline: Deadline,
    at instant: () throws(DeviceError) -> Void = {}
  ) throws(DeviceError) -> UInt64 {
    try requireChecked(until: deadline)
    return try checkpointing.withLock { _ throws(DeviceError) in
      let (recorder, new) = try newCheckpoint(request)
      guard let writing = chain.writing else {
        throw DeviceError(.readOnly, "the disk is read-only")
      }
      try writing.index.flush()
      let draft = try recorder.prepare(beside: chain.top.source)
      let pause: UInt64
      let checkpoints: [Checkpoint]
      do throws(DeviceError) {
        checkpoints = recorder.checkpoints + [new]
        pause = try whileClosed(until: deadline) { () throws(DeviceError) in
          startRecording(checkpoints)
          recorder.add(draft.file)
          try instant()
        }
        // What the instant has is durable before the checkpoint is: it may be all that is left of it.
        try chain.writing?.index.flush()
      } catch {
        recorder.abandon(draft)
        throw error
      }
      // Behind a closing that has begun meanwhile it waits for this lock (``closeCheckpoints()``).
      try recorder.commit(
        draft, .open, chain: try stamps(chain.deltas.map(\.file)), checkpoints: checkpoints)
      recorder.finish(draft)
      recorder.setCheckpoints(checkpoints)
      return pause
    }
  }

  /// A checkpoint that nothing records yet, if there may be one.
  func newCheckpoint(
    _ request: NewCheckpoint
  ) throws(DeviceError) -> (CheckpointRecorder, Checkpoint) {
    let (name, granularityShift) = (request.name, request.granularityShift)
    guard !isReadOnly else { throw DeviceError(.readOnly, "the disk is read-only") }
    try condition.requireWritable()
    func refuse(_ words: String) -> DeviceError { DeviceError(.checkpoint(.unsupported), words) }
    guard let recorder else {
      throw refuse("a disk of more than 64 TiB cannot have checkpoints")
    }
    guard CheckpointFile.granularityShifts.contains(granularityShift) else {
      throw refuse("a granularity is a power of two from 4 KiB to 64 MiB")
    }
    let old = recorder.checkpoints
    guard !old.contains(where: { $0.name == name }) else {
      throw DeviceError(.checkpoint(.exists), "the disk has a checkpoint \(name) already")
    }
    let bytes = CheckpointFile.bitmapBytes(
      forDiskBytes: geometry.sizeBytes, granularityShift: granularityShift)
    guard bytes <= UInt64(CheckpointFile.bitmapBytesLimit) else {
      throw refuse(
        "a bitmap of \(bytes) bytes; \(CheckpointFile.bitmapBytesLimit) are the most: take a larger granularity"
      )
    }
    let all = old.reduce(bytes) {
      $0
        + CheckpointFile.bitmapBytes(
          forDiskBytes: geometry.sizeBytes, granularityShift: $1.granularityShift)
    }
    guard old.count < CheckpointFile.checkpointLimit, all <= CheckpointFile.bitmapsBytesLimit else {
      throw refuse("the disk has as many checkpoints as there may be: remove some")
    }
    let stored = CheckpointFile.Checkpoint(
      name: name, createdAt: request.createdAt, granularityShift: granularityShift,
      parent: old.last?.name, request: request.request)
    return (recorder, Checkpoint(stored, diskBytes: geometry.sizeBytes))
  }

  /// From now on these are recorded, and no others. Nobody is inside the gate.
  func startRecording(_ checkpoints: [Checkpoint]) {
    guard let recorder else { return }
    recorder.beginAnew()
    let sound = checkpoints.filter { $0.inconsistency == nil }
    recorder.activate(sound)
    let others = recorders.current.recorders.filter { $0 !== recorder }
    recorders.replace(with: RecorderList(others + (sound.isEmpty ? [] : [recorder])))
  }

  /// Forgets a checkpoint, durably.
  package func removeCheckpoint(_ name: String, until deadline: Deadline) throws(DeviceError) {
    try replaceCheckpoints(until: deadline) { (all) throws(DeviceError) in
      let gone = try checkpoint(name)
      return all.filter { $0 !== gone }
    }
  }

  /// Gives a checkpoint another name. One that has that name is forgotten by the same step: whatever a crash
  /// leaves, there is one of the name if there was one before.
  ///
  /// - Throws: with both as they were, but if it is unknown which file a crash would leave.
  package func renameCheckpoint(
    _ name: String, to new: String, until deadline: Deadline
  ) throws(DeviceError) {
    try replaceCheckpoints(until: deadline) { (all) throws(DeviceError) in
      _ = try checkpoint(name)
      let forgotten = name == new ? nil : all.first { $0.name == new }
      return all.filter { $0 !== forgotten }.map {
        $0.renamed(name, to: new, forgetting: forgotten)
      }
    }
  }

  /// - Parameter choose: of all that there are, those that there are to be.
  private func replaceCheckpoints(
    until deadline: Deadline, _ choose: ([Checkpoint]) throws(DeviceError) -> [Checkpoint]
  ) throws(DeviceError) {
    try checkpointing.withLock { _ throws(DeviceError) in
      let rest = try choose(checkpoints)
      guard !suspension.isClosing else { throw Device.isClosing }
      guard let recorder, !isReadOnly else {
        throw DeviceError(.readOnly, "the disk is read-only")
      }
      recorder.beginAnew()
      if rest.isEmpty {
        try MarkFile.remove(beside: chain.top.source)
      } else {
        let draft = try recorder.begin(beside: chain.top.source)
        try recorder.commit(
          draft, .open, chain: try stamps(chain.deltas.map(\.file)), checkpoints: rest)
        recorder.finish(draft)
      }
      recorder.setCheckpoints(rest)
      // Bits that nobody asks for any more are set in vain, until nobody is inside the gate.
      _ = try? whileClosed(until: deadline) { () throws(DeviceError) in startRecording(rest) }
    }
  }

  /// A change of the chain by which the disk may read differently without any request having written it:
  /// its body spoils the checkpoints before it makes the change durable.
  func changeUnrecorded(
    until deadline: Deadline, _ body: (DeltaChain) throws(DeviceError) -> DeltaChain,
    repointing: () -> Void = {}
  ) throws(DeviceError) -> UInt64 {
    try checkpointing.withLock { _ throws(DeviceError) in
      try change(until: deadline, body, repointing: repointing)
    }
  }

  /// No checkpoint says anything from now on, durably. The caller is within
  /// ``changeUnrecorded(until:_:)``.
  ///
  /// - Throws: if that cannot be made durable; they are as they were then.
  func spoilCheckpoints(_ words: String) throws(DeviceError) {
    guard let recorder, recorder.isNeeded else { return }
    try recorder.spoil(words)
  }

  // MARK: Closing

  /// The image is closed, and nobody is inside: the bitmaps are all there is to say.
  ///
  /// If this fails the file stays as of an open disk, and the next attach does not believe it.
  func closeCheckpoints() {
    guard let recorder, !recorder.files.isEmpty, recorder.failure == nil else { return }
    checkpointing.withLock { _ in
      guard let draft = try? recorder.begin(beside: chain.top.source) else { return }
      do throws(DeviceError) {
        let files = chain.deltas.map(\.file)
        // A time that a power failure takes back would pass for somebody else's change.
        try converting { () throws(IOError) in for file in files { try file.sync(times: true) } }
        try recorder.commit(
          draft, .closed, chain: try stamps(files), checkpoints: recorder.checkpoints)
      } catch {
        recorder.abandon(draft)
      }
    }
  }

  /// What is to be found in the image itself.
  func bitmapsInImage(_ writing: Writing) -> ImageBitmaps? {
    guard keepsBitmapsInImage else { return nil }
    return ImageBitmaps(checkpoints.map(\.stored), of: geometry)
  }

  func stamps(_ files: [ImageFile]) throws(DeviceError) -> [CheckpointFile.Stamp] {
    var stamps: [CheckpointFile.Stamp] = []
    for file in files { stamps.append(try CheckpointFile.Stamp(of: file)) }
    return stamps
  }
}
