internal import PloopFormat
internal import PloopIO

/// A file of checkpoints that a crash may leave: which regions are marked in it is durable.
///
/// The caller sees to it that one thread at a time calls the methods that write.
final class MarkFile: Sendable {
  let folder: ImageFolder
  /// Its name once it counts; until then it has a temporary one.
  let name: String
  /// Under the name that it has now: whoever replays what was done goes by names.
  private let opened: Locked<ImageFile>
  private let regionShift: Int
  /// Durable marks.
  private let marked: AtomicBits

  private static let chunkBytes = 64 << 10

  /// Makes a file under a temporary name, with no region marked.
  init(
    making name: String, in folder: ImageFolder, diskBytes: UInt64, regionShift: Int
  ) throws(IOError) {
    self.folder = folder
    self.name = name
    self.regionShift = regionShift
    let layout = CheckpointFile(
      state: .open, diskBytes: diskBytes, regionShift: regionShift, chain: [], checkpoints: [])
    marked = AtomicBits(count: layout.regionCount)
    let temporary = "\(name).tmp"
    if folder.contains(temporary) { try folder.unlink(temporary) }
    let file = try folder.create(temporary)
    opened = Locked(file)
    let clean = AlignedBuffer(unfilled: min(layout.marksBytes, MarkFile.chunkBytes)).region
    clean.fill(CheckpointFile.clean)
    do throws(IOError) {
      for start in stride(from: 0, to: layout.marksBytes, by: clean.count) {
        let part = clean.slice(0, min(clean.count, layout.marksBytes - start))
        try file.write(part, at: CheckpointFile.marksOffset + UInt64(start))
      }
    } catch {
      try? folder.unlink(temporary)
      throw error
    }
  }

  private var file: ImageFile { opened.withLock { $0 } }

  /// Writes everything but the marks, which go on being written meanwhile, and makes it durable.
  func write(_ content: CheckpointFile) throws(IOError) {
    let parts = content.parts
    try file.write(AlignedBuffer(parts.body).region, at: content.bodyOffset)
    try file.write(AlignedBuffer(parts.head).region, at: 0)
    try file.sync()
  }

  /// It is the file of its name, durably. After an error it may be either.
  func commit() throws(IOError) {
    try folder.commit(name)
    guard let file = try? folder.open(name, writable: true) else { return }
    opened.withLock { $0 = file }
  }

  /// It never counts.
  func abandon() { try? folder.unlink("\(name).tmp") }

  /// Leaves none beside an image, durably.
  static func remove(beside image: DeltaSource) throws(DeviceError) {
    let name = image.name + CheckpointFile.suffix
    try converting { () throws(IOError) in
      for left in ["\(name).tmp", name] where image.folder.contains(left) {
        try image.folder.unlink(left)
      }
      try image.folder.sync()
    }
  }

  /// Removes it after it has counted, durably.
  func remove() throws(IOError) {
    if folder.contains(name) { try folder.unlink(name) }
    try folder.sync()
  }

  /// Makes the marks of these regions durable; those that are already cost nothing.
  func mark(_ regions: Range<Int>) throws(IOError) {
    let file = self.file
    var isNew = false
    var region = regions.lowerBound
    while region < regions.upperBound {
      let end = min(marked.endOfRun(from: region), regions.upperBound)
      if !marked[region] {
        let bytes = AlignedBuffer(
          [UInt8](repeating: CheckpointFile.written, count: end - region))
        try file.write(bytes.region, at: CheckpointFile.marksOffset + UInt64(region))
        isNew = true
      }
      region = end
    }
    guard isNew else { return }
    try file.sync()
    marked.set(regions)
  }
}
