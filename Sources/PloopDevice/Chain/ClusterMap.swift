internal import PloopFormat
internal import PloopIO
internal import Synchronization

/// Where the newest content of a logical cluster is.
struct Place: Equatable, Sendable {
  /// The number of the delta (``DeltaChain``).
  var delta: Int
  var physical: UInt64
}

/// The merged index of a chain: logical cluster -> its newest owner, or none.
///
/// Pages follow the index pages of the file (page 0 begins behind the header's 16 slots), so that a
/// page can be written, and later loaded and dropped, as a whole. An entry is one word and is
/// published after everything that it names is in the file; whoever reads it may follow it at once.
/// "In no delta" is its own value and never physical 0, which a raw base uses.
final class ClusterMap: Sendable {
  private static let unmapped = UInt64.max
  private static let deltaShift: UInt64 = 40

  private let size: Locked<Geometry>
  private let table: AtomicTable
  private let mapped = Atomic<UInt64>(0)

  init(_ geometry: Geometry) {
    size = Locked(geometry)
    table = AtomicTable(
      count: Int(geometry.clusterCount + Geometry.headerSlots), pageShift: Geometry.pageShift,
      defaultWord: ClusterMap.unmapped)
  }

  /// Of the disk, or of the delta whose entries these are.
  var geometry: Geometry { size.withLock { $0 } }

  /// Gives it room for a larger disk. Nobody may set an entry meanwhile: the gate is closed.
  func grow(to geometry: Geometry) {
    table.grow(to: Int(geometry.clusterCount + Geometry.headerSlots))
    size.withLock { $0 = geometry }
  }

  subscript(cluster: UInt64) -> Place? {
    get {
      let word = table[Int(cluster + Geometry.headerSlots)]
      guard word != ClusterMap.unmapped else { return nil }
      return Place(
        delta: Int(word >> ClusterMap.deltaShift),
        physical: word & ((1 << ClusterMap.deltaShift) - 1))
    }
    set {
      let word =
        newValue.map { UInt64($0.delta) << ClusterMap.deltaShift | $0.physical }
        ?? ClusterMap.unmapped
      let old = table.exchange(Int(cluster + Geometry.headerSlots), word)
      switch (old == ClusterMap.unmapped, word == ClusterMap.unmapped) {
      case (true, false): mapped.wrappingAdd(1, ordering: .relaxed)
      case (false, true): mapped.wrappingSubtract(1, ordering: .relaxed)
      default: break
      }
    }
  }

  /// Like the subscript, for any cluster: these may be the entries of a smaller disk.
  func place(of cluster: UInt64) -> Place? {
    cluster < geometry.clusterCount ? self[cluster] : nil
  }

  /// A run of clusters that lie behind each other, or are all unmapped.
  struct Run {
    var place: Place?
    var count: UInt64
  }

  /// The longest run from `cluster` on, of at most `limit` clusters (at least 1).
  func run(from cluster: UInt64, limit: UInt64) -> Run {
    let first = self[cluster]
    var count: UInt64 = 1
    guard let first else {
      while count < limit {
        let next = cluster + count
        let (page, slot) = Geometry.position(of: next)
        if slot == 0, !table.hasPage(page) {
          // Nothing in the whole page is mapped.
          count = min(limit, count + UInt64(Geometry.entriesPerPage))
        } else if self[next] == nil {
          count += 1
        } else {
          break
        }
      }
      return Run(place: nil, count: count)
    }
    while count < limit,
      self[cluster + count] == Place(delta: first.delta, physical: first.physical + count)
    {
      count += 1
    }
    return Run(place: first, count: count)
  }

  /// Hands out every cluster that is mapped, in ascending order.
  func forEach<Failure: Error>(
    _ body: (_ cluster: UInt64, _ place: Place) throws(Failure) -> Void
  ) throws(Failure) {
    let count = geometry.clusterCount
    var cluster: UInt64 = 0
    while cluster < count {
      let run = run(from: cluster, limit: count - cluster)
      if let place = run.place {
        for step in 0..<run.count {
          try body(cluster + step, Place(delta: place.delta, physical: place.physical + step))
        }
      }
      cluster += run.count
    }
  }

  /// Puts into `page` the bytes of index page `number` as a delta has to have it on
  /// disk: its own entries, everything else 0. The 64 bytes of the header in page 0 are left alone.
  func encode(page number: Int, delta: Int, into page: ByteRegion) {
    let geometry = self.geometry
    let headerBytes = number == 0 ? Header.byteCount : 0
    page.slice(headerBytes, Geometry.pageBytes - headerBytes).zero()
    for cluster in geometry.clusters(inPage: number) {
      guard let place = self[cluster], place.delta == delta else { continue }
      let slot = Geometry.position(of: cluster).slot
      page.setLittleEndian(geometry.entry(of: place.physical), at: slot * 4)
    }
  }

  /// Clusters that some delta maps: counted as they come and go, since a disk may have billions.
  var mappedCount: UInt64 { mapped.load(ordering: .relaxed) }
}
