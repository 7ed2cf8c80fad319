package import PloopDevice
internal import PloopFormat
package import PloopIO

/// Copies a disk while guests write it, in rounds: all of it, then what was written during the round before, and so
/// on, until so little is left that whoever drives this may stop them for the rest (``WriteHold``).
///
/// A block is read after it was taken from the tracker's marks, so what is written while it is read is in a later
/// round. One thread drives it. What has come to the other side is known here alone; after an error at the other side
/// it is opened anew, and where that may have lost something, everything is copied again.
package final class LiveCopy {
  /// Blocks by which changes are tracked have at least so many bytes, as a power of two: small enough that a guest
  /// that writes here and there leaves little to copy.
  private static let leastBlockShift = 16
  private static let mostBlocks: UInt64 = 1 << 26

  package let tracker: Tracker
  private let device: Device
  private let engine: IOEngine
  /// The disk in blocks, or the top's file in its clusters, taken for a disk of a length that it never has.
  private let blocks: Geometry
  private var store: ExportStore?
  private var copy: BackupCopy?
  /// What is to be copied in this round, as far as it is not; nil for everything.
  private var wanted: Bitmap?
  private var isBlank = false
  private var isRoundOver = true
  private var isClosed = false

  /// Rounds that were begun.
  package private(set) var round = 0

  private static let longestFile: UInt64 = 1 << 50

  /// Begins to track what is written; nothing is copied yet.
  ///
  /// - Parameter space: what is copied: the disk, or the file of its top.
  /// - Throws: as ``Tracker/init(_:of:by:until:whenMarked:)``.
  package init(
    of device: Device, _ space: Tracker.Space = .virtual, until deadline: Deadline,
    on engine: IOEngine
  ) throws(DeviceError) {
    let geometry = device.geometry
    self.device = device
    self.engine = engine
    guard space == .virtual else {
      blocks = Geometry(
        version: .v2, clusterShift: geometry.clusterShift, sizeBytes: LiveCopy.longestFile)
      tracker = try Tracker(.image, of: device, until: deadline)
      return
    }
    var shift = LiveCopy.leastBlockShift
    while geometry.sizeBytes >> UInt64(shift) > LiveCopy.mostBlocks,
      shift < Geometry.clusterShifts.upperBound
    {
      shift += 1
    }
    blocks = Geometry(version: .v2, clusterShift: shift, sizeBytes: geometry.sizeBytes)
    tracker = try Tracker(.virtual, of: device, by: shift, until: deadline)
  }

  package var blockBytes: UInt64 { blocks.clusterBytes }

  /// What was written since this round began: the next one's.
  package var writtenBytes: UInt64 { UInt64(tracker.marks.facts.marked) * blockBytes }

  /// Whether there is an other side to copy to.
  package var isOpen: Bool { store != nil }

  /// Has everything copied, from a first round on, to what is opened now.
  ///
  /// - Parameter isBlank: whether it reads as zero.
  /// - Throws: `.mismatch` where the disk cannot be written there.
  /// - Returns: about how many bytes the round is to copy.
  @discardableResult
  package func begin(
    to export: any BlockExport, isBlank: Bool
  ) throws(BackupError) -> UInt64 {
    store = try ExportStore(export, for: blocks, nil)
    self.isBlank = isBlank
    round = 0
    // What is marked now is copied with all the rest.
    var marked = tracker.marks.takeAll()
    wanted = nil
    beginRound()
    guard tracker.space == .image else {
      return device.mappedClusters << UInt64(device.geometry.clusterShift)
    }
    marked.formUnion(tracker.usedClusters)
    wanted = marked
    return UInt64(marked.setCount) * blockBytes
  }

  /// Begins another round: of what was written during the last one, and of what that has not copied.
  ///
  /// - Parameter isLast: whether nobody writes any more: of a file, the copy is one that nobody has open.
  /// - Returns: how many bytes it is to copy.
  package func nextRound(isLast: Bool = false) -> UInt64 {
    var next = tracker.marks.takeAll()
    if !isRoundOver, let rest = rest() { next.formUnion(rest) }
    // Its mark says so, or does not any more.
    if tracker.space == .image, isLast || isClosed { next[0] = true }
    isClosed = isLast
    wanted = next
    isBlank = false
    beginRound()
    return UInt64(next.setCount) * blockBytes
  }

  private func beginRound() {
    round += 1
    copy = nil
    isRoundOver = false
  }

  /// What the round has not copied yet; nil where nothing is open, so that all will be copied anyway.
  private func rest() -> Bitmap? {
    guard isOpen else { return nil }
    // Of a file something always is wanted.
    var rest = wanted ?? Bitmap(allSet: Int(blocks.clusterCount))
    for done in 0..<Int(copy?.sink.cursor ?? 0) where rest[done] { rest[done] = false }
    return rest
  }

  /// Copies a part of the round.
  ///
  /// - Returns: bytes that were read, and false when nothing of the round is left.
  /// - Throws: what reading or storing throws; the step may be made again where the other side is still there.
  package func step(
    limitBytes: UInt64
  ) throws(BackupError) -> (bytesRead: UInt64, goesOn: Bool) {
    guard let store else { throw BackupError(.failed, "nothing is open to copy to") }
    let copy =
      self.copy
      ?? BackupCopy(
        from: source,
        to: RoundWriter(store, blockShift: blocks.clusterShift, isBlank: isBlank), on: engine)
    self.copy = copy
    let before = copy.progress.bytesRead
    do throws(BackupError) {
      let goesOn = try copy.step(limitBytes: limitBytes)
      try copy.commit()
      if !goesOn { isRoundOver = true }
      return (copy.progress.bytesRead - before, goesOn)
    } catch {
      // What is not committed is copied once more. What was stored of it is overwritten then, or in a later round
      // where it is gone from the disk meanwhile.
      wanted = rest()
      self.copy = nil
      throw error
    }
  }

  private var source: any BackupSource {
    guard tracker.space == .image, let wanted else {
      return LiveSource(device, blocks: blocks, wanted: wanted)
    }
    let file = Geometry(
      version: .v2, clusterShift: blocks.clusterShift,
      sizeBytes: UInt64(max(1, wanted.count)) * blockBytes)
    return ImageSource(tracker, file: file, wanted: wanted, isClosed: isClosed)
  }

  /// Everything that was copied is durable at the other side.
  ///
  /// - Throws: with nothing open any more: what a failed flush has lost nobody knows.
  package func flush() throws(BackupError) {
    do { try store?.flush() } catch {
      hangUp()
      throw error
    }
  }

  /// The other side is given up, or has to be opened anew.
  package func hangUp() {
    store?.letGo()
    store = nil
    copy = nil
  }

  /// Tracks no more.
  package func end(until deadline: Deadline) throws(DeviceError) {
    hangUp()
    try tracker.end(until: deadline)
  }
}
