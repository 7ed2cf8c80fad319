internal import PloopFormat
internal import PloopIO
internal import Synchronization

/// Keeps the checkpoints of a disk: bits in memory, and in the file beside the top what a crash must not
/// take away (docs/crash-safety.md, "Checkpoints").
///
/// A request sets its bits before it changes a byte, and changes none before each file that a crash may
/// leave has durable marks for its regions. Bits are set first and ``admitted`` is looked at then; a new
/// file is noted first, ``admitted`` cleared and the bits are copied then. So a file that is being
/// written has either the bits of a request or its marks.
final class CheckpointRecorder: Recorder {
  /// The bitmaps that requests set bits in. It is replaced while the gate is closed.
  final class Active: Sendable {
    let checkpoints: [Checkpoint]

    init(_ checkpoints: [Checkpoint]) { self.checkpoints = checkpoints }
  }

  struct State {
    /// Oldest first.
    var checkpoints: [Checkpoint]
    /// Files that a crash may leave, and that get marks therefore. Changed with ``marking`` held too.
    var files: [MarkFile] = []
    /// Why nothing is recorded any more.
    var failure: String?
  }

  let diskBytes: UInt64
  let regionShift: Int
  private let active: Replaceable<Active>
  let state: Locked<State>
  /// Regions whose marks are durable in every file that needs them.
  private let admitted: AtomicBits
  private let isSpoilt = Atomic<Bool>(false)
  /// Held while marks are written: they are in every file or ``admitted`` does not say so.
  private let marking = Locked(())

  /// - Parameter regionShift: log2 of the bytes of a region; what suits the disk when nil.
  /// - Returns: nil for a disk that is too large to have checkpoints.
  init?(diskBytes: UInt64, checkpoints: [Checkpoint], regionShift: Int? = nil) {
    guard let shift = regionShift ?? CheckpointFile.regionShift(forDiskBytes: diskBytes) else {
      return nil
    }
    let regions = CheckpointFile.regionCount(ofDiskBytes: diskBytes, shift: shift)
    guard regions <= CheckpointFile.regionLimit else { return nil }
    self.diskBytes = diskBytes
    self.regionShift = shift
    admitted = AtomicBits(count: Int(regions))
    active = Replaceable(Active(checkpoints))
    state = Locked(State(checkpoints: checkpoints))
  }

  // MARK: What requests ask

  func mayOverwrite(_ range: Range<UInt64>) -> Bool {
    active.use { active in
      for checkpoint in active.checkpoints { checkpoint.record(range) }
    }
    return admitted.contains(regions(range)) || isSpoilt.load(ordering: .acquiring)
  }

  func willOverwrite(_ range: Range<UInt64>) throws(DeviceError) {
    let regions = self.regions(range)
    try marking.withLock { _ throws(DeviceError) in
      guard !isSpoilt.load(ordering: .acquiring), !admitted.contains(regions) else { return }
      do throws(IOError) {
        for file in state.withLock({ $0.files }) { try file.mark(regions) }
        admitted.set(regions)
      } catch {
        try spoilMarked("a mark could not be written: \(error)")
      }
    }
  }

  /// The bits were set before the bytes.
  func mark(_ range: Range<UInt64>) {}

  private func regions(_ range: Range<UInt64>) -> Range<Int> {
    let first = Int(range.lowerBound >> UInt64(regionShift))
    return first..<Int((range.upperBound - 1) >> UInt64(regionShift)) + 1
  }

  // MARK: Checkpoints

  /// Oldest first.
  var checkpoints: [Checkpoint] { state.withLock { $0.checkpoints } }

  /// Whether any of them says anything that later writes have to be added to.
  var isNeeded: Bool { checkpoints.contains { $0.inconsistency == nil } }

  /// From now on the bits of these are set. Nobody is inside the gate.
  func activate(_ checkpoints: [Checkpoint]) { active.replace(with: Active(checkpoints)) }

  func setCheckpoints(_ checkpoints: [Checkpoint]) {
    state.withLock { $0.checkpoints = checkpoints }
  }

  // MARK: Files

  var files: [MarkFile] { state.withLock { $0.files } }

  /// From now on a file gets marks too; what was written before is in the bits.
  func add(_ file: MarkFile) {
    marking.withLock { _ in
      state.withLock { $0.files.append(file) }
      admitted.clearAll()
    }
  }

  /// Runs `body` while nobody marks anything, and nothing is spoilt.
  func whileUnmarked(_ body: () throws(DeviceError) -> Void) throws(DeviceError) {
    try marking.withLock { _ throws(DeviceError) in try body() }
  }

  /// From now on a file gets no marks: a crash does not leave it, or it counts for nothing.
  func drop(_ file: MarkFile) {
    marking.withLock { _ in state.withLock { $0.files.removeAll { $0 === file } } }
  }

  // MARK: Inconsistency

  /// A first checkpoint after everything was spoilt: the file that says so is about to be replaced.
  func beginAnew() {
    marking.withLock { _ in
      guard failure != nil else { return }
      state.withLock { state in
        state.failure = nil
        state.files = []
      }
      isSpoilt.store(false, ordering: .sequentiallyConsistent)
    }
  }

  /// Why nothing is recorded any more.
  var failure: String? { state.withLock { $0.failure } }

  /// Nothing that the checkpoints say holds any more, durably.
  ///
  /// - Throws: if that cannot be made durable; nothing has changed then.
  func spoil(_ words: String) throws(DeviceError) {
    try marking.withLock { _ throws(DeviceError) in try spoilMarked(words) }
  }

  private func spoilMarked(_ words: String) throws(DeviceError) {
    guard failure == nil else { return }
    let (checkpoints, files) = state.withLock { ($0.checkpoints, $0.files) }
    let content = CheckpointFile(
      state: .open, diskBytes: diskBytes, regionShift: regionShift, chain: [],
      checkpoints: checkpoints.map { checkpoint in
        var stored = checkpoint.stored
        stored.inconsistency = stored.inconsistency ?? words
        stored.bits = []
        return stored
      })
    for file in files {
      do throws(IOError) {
        try file.folder.replace(file.name, with: content.encoded)
      } catch {
        // Without a file there are no checkpoints, which is not too little either.
        try converting { () throws(IOError) in try file.remove() }
      }
    }
    checkpoints.forEach { $0.spoil(words) }
    state.withLock { $0.failure = words }
    isSpoilt.store(true, ordering: .sequentiallyConsistent)
  }
}
