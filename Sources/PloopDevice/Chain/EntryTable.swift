internal import PloopFormat
internal import PloopIO

/// The entries of a delta that is written, as ``IndexWriter`` copies them and requests set them: the disk's own
/// map, or the index of a lower delta that a merge writes.
///
/// Pages are those of the index. One is pinned before a cluster is allocated for an entry of it, and until the
/// entry is in the file: a round has a pin of its own of each page that it is to write.
protocol EntryTable: AnyObject, Sendable {
  /// Has the page stay in memory until it is unpinned.
  ///
  /// - Throws: what reading it fails with; nothing is pinned then.
  func pin(_ page: Int) throws(DeviceError)

  /// Pins a page once more that is pinned.
  func retain(_ page: Int)

  func unpin(_ page: Int)

  /// Says where a cluster is, whose page is pinned.
  func set(_ place: Place?, for cluster: UInt64)

  /// Puts into `region` the bytes of a pinned page as a delta has to have it on disk: its own entries,
  /// everything else 0. The 64 bytes of the header in page 0 are left alone.
  func encode(page: Int, delta: Int, into region: ByteRegion)
}

extension ClusterMap: EntryTable {
  func pin(_ page: Int) throws(DeviceError) {}
  func retain(_ page: Int) {}
  func unpin(_ page: Int) {}
  func set(_ place: Place?, for cluster: UInt64) { self[cluster] = place }
}

extension EntryTable {
  /// Runs `body` while the page is pinned.
  func pinning<Result>(
    _ page: Int, _ body: () throws(DeviceError) -> Result
  ) throws(DeviceError) -> Result {
    try pin(page)
    defer { unpin(page) }
    return try body()
  }
}
