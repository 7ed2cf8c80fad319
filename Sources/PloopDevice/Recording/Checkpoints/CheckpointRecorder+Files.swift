internal import PloopFormat
internal import PloopIO

/// How the file of checkpoints is replaced while requests go on. One thread at a time does so
/// (`Device.checkpointing`).
extension CheckpointRecorder {
  /// A file that is being written, and gets marks already.
  struct Draft {
    let file: MarkFile
    /// What it takes the place of.
    let replaced: [MarkFile]
  }

  /// Steps 1 and 2: a file under a temporary name, which gets marks from now on.
  func begin(beside top: DeltaSource) throws(DeviceError) -> Draft {
    try begin(beside: top, mark: true)
  }

  /// Step 1 alone, for whoever does step 2 (``add(_:)``) at an instant of their own.
  func prepare(beside top: DeltaSource) throws(DeviceError) -> Draft {
    try begin(beside: top, mark: false)
  }

  private func begin(beside top: DeltaSource, mark: Bool) throws(DeviceError) -> Draft {
    let replaced = files
    let file = try converting { () throws(IOError) in
      try MarkFile(
        making: top.name + CheckpointFile.suffix, in: top.folder, diskBytes: diskBytes,
        regionShift: regionShift)
    }
    if mark { add(file) }
    return Draft(file: file, replaced: replaced)
  }

  /// Steps 3 and 4: what it holds, and its name, durably.
  ///
  /// - Parameters:
  ///   - state: whether the disk goes on being written.
  ///   - chain: the files, oldest first.
  ///   - checkpoints: those that it is to have.
  /// - Throws: with the draft abandoned; if nobody knows which file a crash would leave, both go on
  ///   getting marks.
  func commit(
    _ draft: Draft, _ state: CheckpointFile.State, chain: [CheckpointFile.Stamp],
    checkpoints: [Checkpoint]
  ) throws(DeviceError) {
    // Between the copy of the bits and the rename a mark may have failed: what is spoilt stays so.
    if let failure { return try refuse(draft, failure) }
    let content = CheckpointFile(
      state: state, diskBytes: diskBytes, regionShift: regionShift, chain: chain,
      checkpoints: checkpoints.map(\.stored))
    do throws(IOError) { try draft.file.write(content) } catch {
      abandon(draft)
      throw DeviceError(error)
    }
    try whileUnmarked { () throws(DeviceError) in
      if let failure { return try refuse(draft, failure) }
      try converting { () throws(IOError) in try draft.file.commit() }
    }
  }

  private func refuse(_ draft: Draft, _ words: String) throws(DeviceError) {
    abandon(draft)
    throw DeviceError(.checkpoint(.failed), words)
  }

  /// Step 5: nobody needs what was there before.
  func finish(_ draft: Draft) { draft.replaced.forEach { drop($0) } }

  func abandon(_ draft: Draft) {
    state.withLock { $0.files.removeAll { $0 === draft.file } }
    draft.file.abandon()
  }
}
