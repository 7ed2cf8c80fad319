internal import PloopFormat
internal import PloopIO

/// Finds the checkpoints of a chain that is being attached, judges them, and begins to keep them.
///
/// It runs before anything of the chain is changed: what it compares is what the last detach left.
struct CheckpointLoader {
  let levels: [ChainOpener.Level]
  let geometry: Geometry

  private var top: ChainOpener.Level { levels[levels.count - 1] }
  private var folder: ImageFolder { top.source.folder }
  private var name: String { top.source.name + CheckpointFile.suffix }

  /// - Returns: nil for a disk that is too large to have any; and in words what was dropped.
  /// - Throws: when a file that must not be believed can neither be replaced nor removed.
  func load(readonly: Bool) throws(DeviceError) -> (CheckpointRecorder?, notes: [String]) {
    var notes: [String] = []
    let stamps = try levels.map { (level) throws(DeviceError) in
      try CheckpointFile.Stamp(of: level.source.file)
    }
    var stored: [CheckpointFile.Checkpoint] = []
    if !readonly, folder.contains("\(name).tmp") {
      // What a crash has interrupted. If it cannot go, whoever makes the next one says so.
      try? folder.unlink("\(name).tmp")
    }
    if folder.contains(name) {
      do throws(CheckpointFile.Fault) {
        stored = try read(stamps)
      } catch {
        notes.append("\(top.source.file.path)\(CheckpointFile.suffix): dropped: \(error.detail)")
        if !readonly { try MarkFile.remove(beside: top.source) }
      }
    } else {
      stored = try inImage()
    }
    let checkpoints = stored.map { Checkpoint($0, diskBytes: geometry.sizeBytes) }
    if let damaged = levels.first(where: { !$0.tailPages.isEmpty }) {
      // No crash of ours leaves an index like this.
      checkpoints.forEach {
        $0.spoil("the index of \(damaged.source.file.path) had to be repaired")
      }
    }
    let recorder = CheckpointRecorder(diskBytes: geometry.sizeBytes, checkpoints: checkpoints)
    guard let recorder, !readonly, !checkpoints.isEmpty else { return (recorder, notes) }
    do throws(DeviceError) {
      let draft = try recorder.begin(beside: top.source)
      try recorder.commit(draft, .open, chain: stamps, checkpoints: checkpoints)
    } catch {
      // What is there tells of an earlier time: it must not be found after the next crash.
      try MarkFile.remove(beside: top.source)
      recorder.files.forEach { recorder.drop($0) }
      let words = "the file of checkpoints could not be written: \(error.detail)"
      checkpoints.forEach { $0.spoil(words) }
      notes.append("\(top.source.file.path): checkpoints are inconsistent: \(words)")
    }
    return (recorder, notes)
  }

  private func read(
    _ stamps: [CheckpointFile.Stamp]
  ) throws(CheckpointFile.Fault) -> [CheckpointFile.Checkpoint] {
    let bytes: [UInt8]
    do throws(IOError) {
      bytes = try folder.bytes(of: name, limit: CheckpointFile.byteLimit)
    } catch { throw CheckpointFile.Fault(detail: error.description) }
    let (file, isMarked) = try CheckpointFile.parse(bytes)
    return file.judged(isMarked: isMarked, now: stamps, diskBytes: geometry.sizeBytes)
  }

  /// Those of the top's own extension. One that is damaged, or names what is not its own, is dropped.
  private func inImage() throws(DeviceError) -> [CheckpointFile.Checkpoint] {
    guard let header = top.header, header.extensionSector != 0, header.isClean else { return [] }
    var used = top.used
    let reader = ExtensionReader(file: top.source.file, header: header, geometry: geometry)
    guard case .good(let found) = try reader.read(claiming: &used) else { return [] }
    return try ImageBitmaps.read(
      found, from: top.source.file, of: geometry, at: wallClockSeconds())
  }
}

extension CheckpointFile.Stamp {
  init(of file: ImageFile) throws(DeviceError) {
    let buffer = AlignedBuffer(count: Header.byteCount)
    let stamp = try converting { () throws(IOError) -> FileStamp in
      try file.readOrZero(into: buffer.region, at: 0)
      return try file.stamp()
    }
    self.init(
      inode: stamp.inode, sizeBytes: stamp.sizeBytes, seconds: stamp.seconds,
      nanoseconds: stamp.nanoseconds, header: buffer.region.bytes)
  }
}
