internal import PloopFormat
internal import PloopIO

/// The map of a disk that is used: logical cluster -> its newest owner, or none.
///
/// Pages follow the index pages of the files (page 0 begins behind the header's 16 slots). They are loaded when
/// they are needed and dropped under the budget of all disks together (docs/architecture.md, "A map that is not
/// all in memory"). A page that is not there is what the files say; so whatever the files do not say yet is
/// pinned. An entry is one word and is published after everything that it names is in the file; whoever reads it
/// may follow it at once.
final class PagedMap: Sendable {
  private let size: Locked<Geometry>
  let table: PagedTable
  /// Where pages come from; replaced with the chain, while the gate is closed.
  private let index: Replaceable<ChainIndex>

  init(_ geometry: Geometry, pool: FramePool) {
    size = Locked(geometry)
    table = PagedTable(pageCount: geometry.pageCount, defaultWord: Place.nowhere, pool: pool)
    index = Replaceable(ChainIndex([], geometry: geometry, isWritten: false))
  }

  var geometry: Geometry { size.withLock { $0 } }

  /// Gives it room for a larger disk. Nobody may set an entry meanwhile: the gate is closed.
  func grow(to geometry: Geometry) {
    table.grow(toPages: geometry.pageCount)
    size.withLock { $0 = geometry }
  }

  /// Pages come from the files of these deltas from now on, oldest first. Nobody is inside the gate.
  ///
  /// - Parameter isWritten: whether the disk writes the last of them: nobody else does then.
  func follow(_ deltas: [Delta], _ geometry: Geometry, isWritten: Bool) {
    index.replace(with: ChainIndex(deltas, geometry: geometry, isWritten: isWritten))
    _ = table.beginEpoch()
  }

  /// Loads the pages of a small index, as far as there is room that no other disk uses: its disk has no first misses
  /// then.
  func loadIfSmall() throws(DeviceError) {
    guard geometry.pageCount <= PagedMap.smallPages else { return }
    let words = AlignedBuffer(unfilled: FramePool.frameBytes).region
    for page in 0..<geometry.pageCount where !table.isEmpty(page: page) {
      guard table.hasRoom else { return }
      _ = try load(page, into: words, mayWait: true, isKept: true)
    }
  }

  /// 1 MiB of entries.
  private static let smallPages = 256

  /// Clusters that some delta maps.
  var mappedCount: UInt64 { table.mappedCount }

  // MARK: Runs

  /// A run of clusters that lie behind each other, or are all unmapped.
  typealias Run = ClusterMap.Run

  /// The longest run from `cluster` on, of at most `limit` clusters (at least 1).
  ///
  /// - Throws: what reading an index fails with.
  func run(from cluster: UInt64, limit: UInt64) throws(DeviceError) -> Run {
    while true {
      if let run = try run(from: cluster, limit: limit, mayWait: true) { return run }
    }
  }

  /// The same; nil when it would have to wait, or fails.
  @inline(__always)
  func runNow(from cluster: UInt64, limit: UInt64) -> Run? {
    if let run = runInMemory(from: cluster, limit: limit) { return run }
    return (try? run(from: cluster, limit: limit, mayWait: false)) ?? nil
  }

  /// The same where all of it lies in pages that are in memory, and is mapped. That is what most requests want, and it
  /// takes no ``PageReader``, for which references are counted.
  @inline(__always)
  private func runInMemory(from cluster: UInt64, limit: UInt64) -> Run? {
    guard let first = table.word(at: Int(cluster + Geometry.headerSlots)),
      let place = Place(word: first)
    else { return nil }
    var count: UInt64 = 1
    while count < limit {
      guard let word = table.word(at: Int(cluster + count + Geometry.headerSlots)) else {
        return nil
      }
      guard word == first + count else { break }
      count += 1
    }
    table.countHit()
    return Run(place: place, count: count)
  }

  private func run(
    from cluster: UInt64, limit: UInt64, mayWait: Bool
  ) throws(DeviceError) -> Run? {
    var reader = PageReader(self, mayWait: mayWait)
    guard let run = try run(from: cluster, limit: limit, &reader) else { return nil }
    if !reader.hasMissed { table.countHit() }
    return run
  }

  /// - Returns: nil when it would have to wait.
  func run(
    from cluster: UInt64, limit: UInt64, _ reader: inout PageReader
  ) throws(DeviceError) -> Run? {
    guard let first = try reader.word(of: cluster, ahead: limit) else { return nil }
    var count: UInt64 = 1
    guard let place = Place(word: first) else {
      while count < limit {
        let next = cluster + count
        let (page, slot) = Geometry.position(of: next)
        if slot == 0, table.isEmpty(page: page) {
          count = min(limit, count + UInt64(Geometry.entriesPerPage))
          continue
        }
        guard let word = try reader.word(of: next, ahead: limit - count) else { return nil }
        guard word == Place.nowhere else { break }
        count += 1
      }
      return Run(place: nil, count: count)
    }
    while count < limit {
      guard let word = try reader.word(of: cluster + count, ahead: limit - count) else {
        return nil
      }
      guard word == first + count else { break }
      count += 1
    }
    return Run(place: place, count: count)
  }

  /// Where a cluster is.
  ///
  /// - Throws: what reading an index fails with.
  func place(of cluster: UInt64) throws(DeviceError) -> Place? {
    try run(from: cluster, limit: 1).place
  }

  // MARK: Pages

  /// One entry of a page that is not in memory: read by itself the first time, since a disk that is read at
  /// random would drive out what others need; with the whole page when there is room, or the next time.
  ///
  /// - Returns: nil when it would have to wait.
  func miss(_ cluster: UInt64, mayWait: Bool) throws(DeviceError) -> UInt64? {
    let page = Geometry.position(of: cluster).page
    table.countMiss()
    guard !table.isWorthLoading(page: page) else {
      let words = AlignedBuffer(unfilled: FramePool.frameBytes).region
      guard try load(page, into: words, mayWait: mayWait, isKept: true) else { return nil }
      return words.word(at: Geometry.position(of: cluster).slot)
    }
    while true {
      let stamp = table.stamp(page: page)
      do throws(DeviceError) {
        let word = try index.current.word(of: cluster, mayWait: mayWait)
        guard let word else { return nil }
        if table.isCurrent(stamp, page: page) { return word }
      } catch {
        // What was on its way then, or has another place by now, may well be no good.
        if table.isCurrent(stamp, page: page) { throw error }
      }
      if let word = table.word(at: Int(cluster + Geometry.headerSlots)) { return word }
    }
  }

  /// Has the words of a page, from memory or from the files.
  ///
  /// - Parameters:
  ///   - isKept: whether it stays in memory, if there is room.
  ///   - pinned: whether it has to stay there; it is pinned then.
  /// - Returns: false when it would have to wait.
  func load(
    _ page: Int, into words: ByteRegion, mayWait: Bool, isKept: Bool, pinned: Bool = false
  ) throws(DeviceError) -> Bool {
    while true {
      if pinned ? table.pin(page: page) : table.copy(page: page, into: words) { return true }
      let stamp = table.stamp(page: page)
      let count: Int?
      do throws(DeviceError) {
        count = try index.current.read(page: page, into: words, mayWait: mayWait)
      } catch {
        guard table.isCurrent(stamp, page: page) else { continue }
        throw error
      }
      guard let count else { return false }
      if isKept, table.install(page: page, stamp, words, mapped: count, pinned: pinned) {
        return true
      }
      // Another thread was first, or what was read is not so any more.
      guard table.isCurrent(stamp, page: page), !pinned else { continue }
      table.countMapped(count, page: page, stamp)
      return true
    }
  }

  /// Pins a page if that needs no wait.
  func pinNow(_ page: Int) -> Bool {
    if table.pin(page: page) { return true }
    let words = AlignedBuffer(unfilled: FramePool.frameBytes).region
    return (try? load(page, into: words, mayWait: false, isKept: true, pinned: true)) ?? false
  }

  /// Whether the disk is to have its pages written before it changes more of them.
  var isCrowding: Bool { table.isCrowding }
}

extension PagedMap: EntryTable {
  func pin(_ page: Int) throws(DeviceError) {
    guard !table.pin(page: page) else { return }
    let words = AlignedBuffer(unfilled: FramePool.frameBytes).region
    _ = try load(page, into: words, mayWait: true, isKept: true, pinned: true)
  }

  /// Like a set of an entry, nothing that may go on for a page that is not there: what a round would write of it is
  /// nothing.
  func retain(_ page: Int) {
    guard table.pin(page: page) else { preconditionFailure("the page \(page) is not pinned") }
  }

  func unpin(_ page: Int) { table.unpin(page: page) }

  func set(_ place: Place?, for cluster: UInt64) {
    table.set(Int(cluster + Geometry.headerSlots), place?.word ?? Place.nowhere)
  }

  func encode(page number: Int, delta: Int, into page: ByteRegion) {
    let geometry = self.geometry
    let headerBytes = number == 0 ? Header.byteCount : 0
    page.slice(headerBytes, Geometry.pageBytes - headerBytes).zero()
    for cluster in geometry.clusters(inPage: number) {
      guard let word = table.word(at: Int(cluster + Geometry.headerSlots)) else {
        preconditionFailure("the page \(number) is not pinned")
      }
      guard let place = Place(word: word), place.delta == delta else { continue }
      let slot = Geometry.position(of: cluster).slot
      page.setLittleEndian(geometry.entry(of: place.physical), at: slot * 4)
    }
  }
}

/// Looks clusters up one after the other: in memory without a lock, else by one entry or, where more of a page is
/// wanted, by a copy of the whole page.
struct PageReader {
  /// More clusters than that are worth reading a page for.
  private static let fewClusters: UInt64 = 4

  private let map: PagedMap
  private let mayWait: Bool
  /// Whether pages that are read stay in memory.
  private let isKept: Bool
  private var page = -1
  private var words: ByteRegion?
  /// Whether a page was not in memory.
  private(set) var hasMissed = false

  init(_ map: PagedMap, mayWait: Bool, isKept: Bool = true) {
    self.map = map
    self.mayWait = mayWait
    self.isKept = isKept
  }

  /// - Parameter ahead: how many clusters the caller will ask for from this one on, perhaps.
  /// - Returns: nil when it would have to wait.
  mutating func word(of cluster: UInt64, ahead: UInt64) throws(DeviceError) -> UInt64? {
    if let word = map.table.word(at: Int(cluster + Geometry.headerSlots)) {
      return word
    }
    return try wordOfAbsent(cluster, ahead: ahead)
  }

  private mutating func wordOfAbsent(
    _ cluster: UInt64, ahead: UInt64
  ) throws(DeviceError) -> UInt64? {
    let (number, slot) = Geometry.position(of: cluster)
    if number == page, let words { return words.word(at: slot) }
    if map.table.isEmpty(page: number) { return Place.nowhere }
    hasMissed = true
    guard ahead > PageReader.fewClusters || !isKept else {
      return try map.miss(cluster, mayWait: mayWait)
    }
    let words = self.words ?? AlignedBuffer(unfilled: FramePool.frameBytes).region
    page = -1
    map.table.countMiss()
    let isKept = self.isKept && map.table.isWorthLoading(page: number)
    guard try map.load(number, into: words, mayWait: mayWait, isKept: isKept) else { return nil }
    self.words = words
    page = number
    return words.word(at: slot)
  }
}
