internal import PloopFormat
internal import PloopIO
internal import Synchronization

/// The indexes of a chain's files, newest first: where the pages of the map come from.
///
/// Nothing in a file is trusted, also not what was right at the attach: an entry is followed only if it names a
/// whole cluster inside the file, behind the header. And an entry that is gone is no hole: what a lower delta has it
/// keeps as long as it is one, so one that has lost an entry has been spoilt, or is just being written by a program
/// that zeroes what it writes anew.
final class ChainIndex: Sendable {
  private final class Source: Sendable {
    let level: Int
    /// Whether nobody but this disk's own rounds writes it. Of the others a page may be written while it is read: by a
    /// merge, or another program.
    let isOurs: Bool
    let number: Int
    let file: ImageFile
    let layout: Delta.Layout
    /// What it has to have, as far as that is known: of a lower delta.
    private let former: FormerClusters?
    /// Whole clusters in the file when somebody looked last.
    let fileClusters = Atomic<UInt64>(0)

    init(_ delta: Delta, level: Int, isTop: Bool, isWritten: Bool) {
      self.level = level
      isOurs = isTop && isWritten
      number = delta.number
      file = delta.file
      layout = delta.layout
      former = isTop ? nil : delta.had
    }

    /// Nil where that is not known.
    var had: MappedClusters? { former?.clusters }
  }

  private let geometry: Geometry
  private let sources: [Source]

  /// - Parameter isWritten: whether this disk writes the newest of them.
  init(_ deltas: [Delta], geometry: Geometry, isWritten: Bool) {
    self.geometry = geometry
    sources = deltas.enumerated().reversed().map {
      Source($1, level: $0, isTop: $0 == deltas.count - 1, isWritten: isWritten)
    }
  }

  // MARK: One entry

  /// Looks one cluster up, reading no more than its entries.
  ///
  /// - Parameter mayWait: whether it may wait for a disk; without that it fails only by not telling.
  /// - Returns: a word as the map has it; nil when it would have to wait.
  /// - Throws: what reading fails with; `.format` for an entry that is wrong; `.refused(.mismatch)` for one that is gone,
  ///   and for one that does not stay the same for as long as it takes to read it twice.
  func word(of cluster: UInt64, mayWait: Bool) throws(DeviceError) -> UInt64? {
    let offset = (Geometry.headerSlots + cluster) * 4
    for source in sources {
      switch source.layout {
      case .raw(let clusters):
        guard cluster < clusters else { continue }
        return Place(delta: source.number, physical: cluster).word
      case .ploop(let own):
        guard cluster < own.clusterCount else { continue }
        let entry = try ChainIndex.entry(of: source, at: offset, mayWait: mayWait)
        guard let entry else { return nil }
        guard entry != 0 else {
          if source.had?.contains(cluster) == true { throw ChainIndex.lost(cluster, source) }
          continue
        }
        return try word(entry, of: cluster, source, own)
      }
    }
    return Place.nowhere
  }

  /// So often is read again what differs. What has not been the same twice by then is not believed: half of it may be
  /// old.
  private static let readsMost = 16

  /// An entry as the file has it; where others write it, as two reads have had it.
  private static func entry(
    of source: Source, at offset: UInt64, mayWait: Bool
  ) throws(DeviceError) -> UInt32? {
    func read() throws(DeviceError) -> UInt32? {
      guard mayWait else { return source.file.wordNow(at: offset) }
      let found = try converting { () throws(IOError) in try source.file.word(at: offset) }
      guard let found else { throw truncated(source) }
      return found
    }
    guard var entry = try read() else { return nil }
    guard !source.isOurs else { return entry }
    for _ in 1..<readsMost {
      guard let again = try read() else { return nil }
      if again == entry { return entry }
      entry = again
    }
    throw unsteady(source)
  }

  private func word(
    _ entry: UInt32, of cluster: UInt64, _ source: Source, _ own: Geometry
  ) throws(DeviceError) -> UInt64 {
    let known = source.fileClusters.load(ordering: .relaxed)
    if case .success(let physical) = own.physical(of: entry, cluster: cluster, fileClusters: known)
    {
      return Place(delta: source.number, physical: physical).word
    }
    // The file has grown since, or it is no good.
    let bytes = try converting { () throws(IOError) in try source.file.size() }
    let clusters = min(bytes >> UInt64(own.clusterShift), own.physicalLimit + 1)
    source.fileClusters.store(clusters, ordering: .relaxed)
    switch own.physical(of: entry, cluster: cluster, fileClusters: clusters) {
    case .success(let physical): return Place(delta: source.number, physical: physical).word
    case .failure(let fault):
      throw ChainOpener.corrupt(fault, level: source.level, path: source.file.path)
    }
  }

  private static func truncated(_ source: Source) -> DeviceError {
    DeviceError(
      FormatError(.truncated, "the index ends early"), level: source.level, path: source.file.path)
  }

  private static func lost(_ cluster: UInt64, _ source: Source) -> DeviceError {
    DeviceError(
      .refused(.mismatch), "\(source.file.path) has lost what it had: the cluster \(cluster)")
  }

  private static func unsteady(_ source: Source) -> DeviceError {
    DeviceError(
      .refused(.mismatch),
      "\(source.file.path): its index is written all the time; \(readsMost) reads of it in a row differed"
    )
  }

  // MARK: A page

  /// Reads a page of the map: of each delta its own index page, so that how many there are costs nothing later.
  ///
  /// - Parameters:
  ///   - words: 1,024 of 64 bits, which it fills.
  ///   - mayWait: as above.
  /// - Returns: how many clusters of the page are mapped; nil when it would have to wait.
  func read(
    page: Int, into words: ByteRegion, mayWait: Bool
  ) throws(DeviceError) -> Int? {
    let clusters = geometry.clusters(inPage: page)
    for slot in 0..<Geometry.entriesPerPage { words.setWord(Place.nowhere, at: slot) }
    var mapped = 0
    let buffer = AlignedBuffer(unfilled: Geometry.pageBytes)
    for source in sources where mapped < clusters.count {
      let own: Geometry
      switch source.layout {
      case .raw(let count):
        for cluster in clusters where cluster < count {
          let slot = Geometry.position(of: cluster).slot
          guard words.word(at: slot) == Place.nowhere else { continue }
          words.setWord(Place(delta: source.number, physical: cluster).word, at: slot)
          mapped += 1
        }
        continue
      case .ploop(let geometry): own = geometry
      }
      guard page < own.pageCount else { continue }
      guard try ChainIndex.read(page, of: source, into: buffer.region, mayWait: mayWait) else {
        return nil
      }
      let had = source.had.flatMap { $0.hasAny(inPage: page) ? $0 : nil }
      if had == nil, buffer.region.isZero { continue }
      for cluster in own.clusters(inPage: page).clamped(to: clusters) {
        let slot = Geometry.position(of: cluster).slot
        guard words.word(at: slot) == Place.nowhere else { continue }
        let entry = buffer.region.littleEndian(at: slot * 4, as: UInt32.self)
        guard entry != 0 else {
          if had?.contains(cluster) == true { throw ChainIndex.lost(cluster, source) }
          continue
        }
        words.setWord(try word(entry, of: cluster, source, own), at: slot)
        mapped += 1
      }
    }
    return mapped
  }

  /// Reads an index page, as an entry above.
  ///
  /// - Returns: false when it would have to wait.
  /// - Throws: as above.
  private static func read(
    _ page: Int, of source: Source, into region: ByteRegion, mayWait: Bool
  ) throws(DeviceError) -> Bool {
    let offset = UInt64(page) * UInt64(Geometry.pageBytes)
    func read(_ region: ByteRegion) throws(DeviceError) -> Bool {
      guard mayWait else { return source.file.readNow(into: region, at: offset) }
      let count = try converting { () throws(IOError) in
        try source.file.read(into: region, at: offset)
      }
      guard count == region.count else { throw truncated(source) }
      return true
    }
    guard try read(region) else { return false }
    // One that nothing has been written to yet has nothing that is half there.
    guard !source.isOurs, !region.isZero else { return true }
    let before = AlignedBuffer(unfilled: Geometry.pageBytes).region
    for _ in 1..<readsMost {
      before.copy(from: region)
      guard try read(region) else { return false }
      if region.equals(before) { return true }
    }
    throw unsteady(source)
  }
}

extension ByteRegion {
  /// The words of a page of the map.
  func word(at slot: Int) -> UInt64 { littleEndian(at: slot * 8, as: UInt64.self) }
  func setWord(_ word: UInt64, at slot: Int) { setLittleEndian(word, at: slot * 8) }
}

extension Place {
  /// "In no delta" is its own value and never physical 0, which a raw base uses.
  static let nowhere = UInt64.max
  private static let deltaShift: UInt64 = 40

  var word: UInt64 { UInt64(delta) << Place.deltaShift | physical }

  init?(word: UInt64) {
    guard word != Place.nowhere else { return nil }
    self.init(
      delta: Int(word >> Place.deltaShift), physical: word & ((1 << Place.deltaShift) - 1))
  }
}
