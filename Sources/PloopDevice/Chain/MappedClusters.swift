internal import PloopFormat
internal import PloopIO

/// Which clusters a delta's own index has: 128 bytes for each page of it that has any.
struct MappedClusters: Sendable {
  private static let wordsPerPage = Geometry.entriesPerPage / 64

  /// Where the bits of a page begin.
  private var starts: [Int: Int] = [:]
  private var words: [UInt64] = []
  private(set) var count: UInt64 = 0

  mutating func insert(_ run: IndexRun) {
    var cluster = run.cluster
    let end = run.cluster + run.count
    count += run.count
    while cluster < end {
      let (page, first) = Geometry.position(of: cluster)
      let count = min(end - cluster, UInt64(Geometry.entriesPerPage - first))
      let start = start(of: page)
      for slot in first..<first + Int(count) { words[start + slot >> 6] |= 1 << UInt64(slot & 63) }
      cluster += count
    }
  }

  private mutating func start(of page: Int) -> Int {
    if let start = starts[page] { return start }
    starts[page] = words.count
    words += repeatElement(0, count: MappedClusters.wordsPerPage)
    return words.count - MappedClusters.wordsPerPage
  }

  func contains(_ cluster: UInt64) -> Bool {
    let (page, slot) = Geometry.position(of: cluster)
    guard let start = starts[page] else { return false }
    return words[start + slot >> 6] & 1 << UInt64(slot & 63) != 0
  }

  func hasAny(inPage page: Int) -> Bool { starts[page] != nil }

  /// The pages that have any, in ascending order.
  var pages: [Int] { starts.keys.sorted() }
}

/// What was known of a delta's index when nobody else could have written it: at the attach, and whenever the disk has
/// closed it, as a top that has become a lower delta or one that a merge has written.
final class FormerClusters: Sendable {
  private struct Found {
    var clusters: MappedClusters?
    var count: UInt64?
  }

  private let found: Locked<Found>

  init(_ clusters: MappedClusters? = nil) { found = Locked(Found(clusters: clusters)) }

  /// Nil where that is not known.
  var clusters: MappedClusters? { found.withLock { $0.clusters } }

  /// How many there were, which may be known of a delta of which no more is.
  var count: UInt64? { found.withLock { $0.clusters?.count ?? $0.count } }

  func note(_ clusters: MappedClusters?, count: UInt64? = nil) {
    found.withLock { $0 = Found(clusters: clusters, count: count) }
  }

  /// Reads the index of a file that is just being closed. Where it cannot be read what was known before stays, which it
  /// has all the same: nothing has been taken out.
  func read(_ file: ImageFile, _ geometry: Geometry) {
    guard let found = try? FormerClusters.clusters(of: file, geometry) else { return }
    note(found)
  }

  static func clusters(
    of file: ImageFile, _ geometry: Geometry
  ) throws(DeviceError) -> MappedClusters {
    var clusters = MappedClusters()
    let bytes = try converting { () throws(IOError) in try file.size() }
    var scan = IndexScan(geometry, fileBytes: bytes)
    try scan.runs(of: file) { run in
      clusters.insert(run)
    } fault: { (fault) throws(DeviceError) in
      guard fault.kind != .beyondDisk else { return }
      throw ChainOpener.corrupt(fault, level: 0, path: file.path)
    }
    return clusters
  }
}
