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
    private let map: PagedMap
    private var reader: PageReader

    fileprivate init(_ map: PagedMap) {
      self.map = map
      reader = PageReader(map, mayWait: true, isKept: false)
    }

    /// - Throws: what reading an index fails with.
    mutating func place(of cluster: UInt64) throws(DeviceError) -> Place? {
      Place(word: try reader.word(of: cluster, ahead: .max) ?? Place.nowhere)
    }

    /// A run as of ``PagedMap/run(from:limit:)``, of so many clusters at most as a page has: whoever goes on in small
    /// steps does not look at the same long run again and again.
    mutating func run(from cluster: UInt64, limit: UInt64) throws(DeviceError) -> Run {
      let limit = min(limit, UInt64(Geometry.entriesPerPage))
      while true {
        if let run = try map.run(from: cluster, limit: limit, &reader) { return run }
      }
    }
  }

  func walk() -> Walk { Walk(self) }

  /// Clusters that are looked up before everybody has to wait, so that little is left to be read then: of pages that
  /// are in memory nothing, and of others what has changed.
  struct Foresight {
    private let map: PagedMap
    private var stamps: [Int: PagedTable.Stamp] = [:]
    private var places: [UInt64: Place] = [:]

    fileprivate init(_ map: PagedMap, _ clusters: [UInt64]) throws(DeviceError) {
      self.map = map
      var walk = map.walk()
      for cluster in clusters.sorted() {
        let page = Geometry.position(of: cluster).page
        // From before it is read.
        if stamps[page] == nil { stamps[page] = map.table.stamp(page: page) }
        places[cluster] = try walk.place(of: cluster)
      }
    }

    /// Where one of them is now.
    ///
    /// - Throws: what reading an index fails with.
    func place(of cluster: UInt64) throws(DeviceError) -> Place? {
      if let word = map.table.word(at: Int(cluster + Geometry.headerSlots)) {
        return Place(word: word)
      }
      let page = Geometry.position(of: cluster).page
      if let stamp = stamps[page], map.table.isCurrent(stamp, page: page) { return places[cluster] }
      return try map.place(of: cluster)
    }
  }

  /// - Throws: what reading an index fails with.
  func foresee(_ clusters: [UInt64]) throws(DeviceError) -> Foresight {
    try Foresight(self, clusters)
  }

  // MARK: Other owners

  /// Has entries that are in memory name other places, with the same bytes; what is not there comes from the files,
  /// which have to say so already. Whatever is being read from them meanwhile is read again.
  ///
  /// - Parameters:
  ///   - pages: those to be looked at; all by default.
  ///   - epoch: of the last time; pages that have not been filled since then are left out.
  ///   - locks: of the clusters, where others may change them meanwhile.
  ///   - entry: the place for a cluster, which it has by now; nil for one that stays.
  /// - Returns: the epoch of this time.
  @discardableResult
  func repoint(
    inPages pages: [Int]? = nil, since epoch: UInt64 = 0, with locks: ClusterLocks?,
    _ entry: (_ cluster: UInt64, _ place: Place?) -> Replacement?
  ) -> UInt64 {
    let now = table.beginEpoch()
    let geometry = self.geometry
    for page in pages ?? table.residentPages(since: epoch) where table.pin(page: page) {
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

  /// Whether the pages that are in memory name nothing but these deltas. A number that no delta has is the next
  /// delta's: an entry that still named it would lead into the wrong file.
  func names(only numbers: [Int]) -> Bool {
    let numbers = Set(numbers)
    let geometry = self.geometry
    return table.residentPages().allSatisfy { page in
      geometry.clusters(inPage: page).allSatisfy { cluster in
        let word = table.word(at: Int(cluster + Geometry.headerSlots)) ?? Place.nowhere
        return Place(word: word).map { numbers.contains($0.delta) } ?? true
      }
    }
  }

  /// The first cluster found of which a page that is in memory says that a delta has it, and which is as asked for.
  func firstInMemory(of delta: Int, where isWanted: (_ cluster: UInt64) -> Bool) -> UInt64? {
    let geometry = self.geometry
    for page in table.residentPages() {
      for cluster in geometry.clusters(inPage: page) {
        let word = table.word(at: Int(cluster + Geometry.headerSlots)) ?? Place.nowhere
        if Place(word: word)?.delta == delta, isWanted(cluster) { return cluster }
      }
    }
    return nil
  }

  // MARK: Counting

  /// Notes clusters that an index has been seen to have, and no other one before, of pages that are not in memory; they
  /// come in ascending order.
  struct Counter {
    private let map: PagedMap
    private let geometry: Geometry
    private var page = -1
    private var count = 0

    init(_ map: PagedMap) {
      self.map = map
      geometry = map.geometry
    }

    mutating func add(_ clusters: Range<UInt64>) {
      var cluster = clusters.lowerBound
      while cluster < clusters.upperBound {
        let page = Geometry.position(of: cluster).page
        if page != self.page {
          end()
          self.page = page
        }
        let next = min(clusters.upperBound, geometry.clusters(inPage: page).upperBound)
        count += Int(next - cluster)
        cluster = next
      }
    }

    /// To be called behind the last of them.
    mutating func end() {
      if count > 0 { map.table.addMapped(count, page: page) }
      count = 0
    }
  }

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
  ///
  /// - Parameter isWanted: asked before each page; the others stay uncounted when it says no.
  /// - Returns: whether it never did.
  @discardableResult
  func count(while isWanted: () -> Bool = { true }) -> Bool {
    let words = AlignedBuffer(unfilled: FramePool.frameBytes).region
    for page in table.uncountedPages() {
      guard isWanted() else { return false }
      _ = try? load(page, into: words, mayWait: true, isKept: false)
    }
    return true
  }
}
