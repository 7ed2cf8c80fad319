internal import PloopFormat
internal import PloopIO

// Whole maps, page by page. What is not in memory is read and not kept: who looks at everything once must not
// drive out what others need.

extension PagedMap {
  /// Hands out every cluster of a range of pages that is mapped, in ascending order.
  ///
  /// - Throws: what reading an index fails with, and what `body` throws.
  func forEach(
    inPages pages: Range<Int>? = nil,
    _ body: (_ cluster: UInt64, _ place: Place) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    let geometry = self.geometry
    let words = AlignedBuffer(unfilled: FramePool.frameBytes).region
    for page in pages ?? 0..<geometry.pageCount where !table.isEmpty(page: page) {
      _ = try load(page, into: words, mayWait: true, isKept: false)
      for cluster in geometry.clusters(inPage: page) {
        let word = words.word(at: Geometry.position(of: cluster).slot)
        guard let place = Place(word: word) else { continue }
        try body(cluster, place)
      }
    }
  }

  /// Looks clusters up for who goes through the disk in order.
  struct Walk {
    private var reader: PageReader

    fileprivate init(_ map: PagedMap) {
      reader = PageReader(map, mayWait: true, isKept: false)
    }

    /// - Throws: what reading an index fails with.
    mutating func place(of cluster: UInt64) throws(DeviceError) -> Place? {
      Place(word: try reader.word(of: cluster, ahead: .max) ?? Place.nowhere)
    }
  }

  func walk() -> Walk { Walk(self) }

  // MARK: Other owners

  /// Has entries that are in memory name other places, with the same bytes; what is not there comes from the files,
  /// which have to say so already. Whatever is being read from them meanwhile is read again.
  ///
  /// - Parameters:
  ///   - epoch: of the last time; pages that have not been filled since then are left out.
  ///   - locks: of the clusters, where others may change them meanwhile.
  ///   - entry: the place for a cluster, which it has by now; nil for one that stays.
  /// - Returns: the epoch of this time.
  @discardableResult
  func repoint(
    since epoch: UInt64 = 0, with locks: ClusterLocks?,
    _ entry: (_ cluster: UInt64, _ place: Place?) -> Replacement?
  ) -> UInt64 {
    let now = table.beginEpoch()
    let geometry = self.geometry
    for page in table.residentPages(since: epoch) where table.pin(page: page) {
      defer { table.unpin(page: page) }
      for cluster in geometry.clusters(inPage: page) {
        func look() -> Replacement? {
          table.word(at: Int(cluster + Geometry.headerSlots)).flatMap {
            entry(cluster, Place(word: $0))
          }
        }
        guard look() != nil else { continue }
        locks?.lock(cluster)
        defer { locks?.unlock(cluster) }
        guard let found = look() else { continue }
        set(found.place, for: cluster)
      }
    }
    return now
  }

  struct Replacement { var place: Place? }

  // MARK: Counting

  /// Nobody knows any more what there is in pages that are not in memory, of those in which `entries` has something:
  /// they are looked for in the files again.
  func forgetCounts(of entries: ClusterMap) {
    var last = -1
    entries.forEach { cluster, _ in
      let page = Geometry.position(of: cluster).page
      if page != last { table.forgetMapped(page: page) }
      last = page
    }
  }

  /// Counts pages that are not in memory, whatever was known of them.
  func count(anew pages: some Sequence<Int>) {
    for page in pages { table.forgetMapped(page: page) }
    count()
  }

  /// Counts pages that nobody has counted. Those that cannot be read stay so.
  func count() {
    let words = AlignedBuffer(unfilled: FramePool.frameBytes).region
    for page in table.uncountedPages() {
      _ = try? load(page, into: words, mayWait: true, isKept: false)
    }
  }
}
