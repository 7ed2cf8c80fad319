internal import PloopFormat
internal import PloopIO

/// The deltas of a disk between two changes of its chain. A change makes a new chain and puts it in
/// the place of the old one while the gate is closed (``Device/change(until:_:)``).
///
/// Deltas come and go, so the map does not name them by their level: a delta has a *number* of its
/// own for as long as it belongs to the disk. A change that drops a delta has nothing to renumber.
final class DeltaChain: Sendable {
  /// Oldest to newest; the last is the top.
  let deltas: [Delta]
  /// Of the top, and so of the disk.
  let geometry: Geometry
  /// The deltas' files by number, for reads that count no references.
  let files: FileTable
  /// What writes the top; nil on a read-only disk.
  let writing: Writing?
  /// The same for writes in place, which count no references.
  let borrowedWriting: Borrowed<Writing>?
  private let levels: [Int: Int]

  init(_ deltas: [Delta], geometry: Geometry, writing: Writing?) {
    self.deltas = deltas
    self.geometry = geometry
    self.writing = writing
    files = FileTable(
      Dictionary(deltas.map { ($0.number, $0.file) }, uniquingKeysWith: { first, _ in first }))
    borrowedWriting = writing.map(Borrowed.init)
    levels = Dictionary(
      deltas.enumerated().map { ($1.number, $0) }, uniquingKeysWith: { first, _ in first })
  }

  var top: Delta { deltas[deltas.count - 1] }
  var topLevel: Int { deltas.count - 1 }

  /// Counted from the oldest delta; nil for a number that no delta has.
  func level(of number: Int) -> Int? { levels[number] }

  /// Whether one delta lies beneath another one of this chain.
  func isOlder(_ delta: Delta, than other: Delta) -> Bool {
    (level(of: delta.number) ?? 0) < (level(of: other.number) ?? 0)
  }

  /// The delta that the map calls so. Every number in the map belongs to a delta of the chain.
  func delta(_ number: Int) throws(DeviceError) -> Delta {
    guard let level = levels[number] else {
      throw DeviceError(.detached, "no delta has the number \(number)")
    }
    return deltas[level]
  }

  /// The delta that was written so, if it is still there: numbers are used again, of deltas that have gone.
  func delta(of writing: Writing) -> Delta? {
    deltas.first {
      $0.number == writing.number && $0.file.identity == writing.file.identity
    }
  }

  func has(_ writing: Writing) -> Bool { delta(of: writing) != nil }

  /// The lowest number that no delta has.
  var freeNumber: Int { (0...deltas.count).first { levels[$0] == nil } ?? deltas.count }
}

/// What only the top of a disk that can be written has.
final class Writing: Sendable {
  /// What the map calls the top.
  let number: Int
  let file: ImageFile
  let allocator: ClusterAllocator
  let index: IndexWriter
  /// Whether space can be given back and ranges zeroed without writing them.
  let canPunch: Bool

  /// - Parameters:
  ///   - used: clusters of the file that header, index and entries use.
  ///   - map: has the delta's entries under its number.
  ///   - below: what has to be durable before anything of this delta is.
  init(
    _ delta: Delta, geometry: Geometry, used: Bitmap, map: any EntryTable, gate: Gate,
    condition: Condition, canPunch: Bool, above below: SideWork<Void, DeviceError>? = nil
  ) {
    number = delta.number
    file = delta.file
    self.canPunch = canPunch
    file.expectRandomAccess()
    allocator = ClusterAllocator(file: file, geometry: geometry, gate: gate, used: used)
    index = IndexWriter(
      file: file, map: map, delta: delta.number, allocator: allocator, condition: condition,
      below: below)
  }
}
