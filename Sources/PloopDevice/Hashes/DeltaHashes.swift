internal import PloopFormat
internal import PloopIO
internal import Synchronization

/// The checksums of a delta that nobody writes, for who is about to build on what it reads.
///
/// They are believed only as long as the delta is the very file that they were made of: another inode,
/// length, time or header, and they say nothing. Any thread may ask.
final class DeltaHashes: Sendable {
  enum Finding: Equatable {
    case same
    /// Nothing is known of the cluster, or of the delta as it is now.
    case unknown
    case differs
  }

  private let delta: ImageFile
  private let sums: ImageFile
  private let subject: HashFile.Subject

  /// - Parameter geometry: of the disk.
  /// - Returns: nil where there are no sums of the delta as it is.
  /// - Throws: `.io` where that cannot be told: whoever is about to trust the delta does not, then.
  static func of(_ delta: Delta, like geometry: Geometry) throws(DeviceError) -> DeltaHashes? {
    let subject = try HashFile.Subject(
      delta.file, isRaw: delta.isRaw, DeltaHashes.geometry(of: delta, like: geometry))
    guard let sums = try HashFile.open(beside: delta.source, of: subject) else { return nil }
    return DeltaHashes(delta.file, sums, subject)
  }

  private init(_ delta: ImageFile, _ sums: ImageFile, _ subject: HashFile.Subject) {
    self.delta = delta
    self.sums = sums
    self.subject = subject
  }

  /// A raw base is as large as its file.
  static func geometry(of delta: Delta, like geometry: Geometry) -> Geometry {
    switch delta.layout {
    case .ploop(let own): own
    case .raw(let clusters):
      Geometry(
        version: geometry.version, clusterShift: geometry.clusterShift,
        sizeBytes: clusters << UInt64(geometry.clusterShift))
    }
  }

  /// One page of sums, as it was read last.
  struct Cursor {
    fileprivate var number: UInt64?
    fileprivate let page = AlignedBuffer(count: Geometry.pageBytes).region
    fileprivate var isSound = false

    init() {}
  }

  /// - Returns: nil where nothing is known; 0 for a cluster that the delta does not map.
  func sum(of cluster: UInt64, _ cursor: inout Cursor) throws(DeviceError) -> UInt32? {
    let number = cluster / HashFile.sumsPerPage
    if cursor.number != number {
      cursor.number = nil
      let page = cursor.page
      try converting { () throws(IOError) in
        try sums.readOrZero(into: page, at: HashFile.offset(ofPage: number))
      }
      cursor.isSound = HashFile.isSealed(page)
      cursor.number = number
    }
    guard cursor.isSound else { return nil }
    return cursor.page.littleEndian(at: Int(cluster % HashFile.sumsPerPage) * 4, as: UInt32.self)
  }

  /// Holds a cluster that the delta maps against its sum.
  ///
  /// - Throws: `.io` when it cannot be read.
  func judge(
    _ cluster: UInt64, _ content: MergeContent, _ buffer: AlignedBuffer, _ cursor: inout Cursor
  ) throws(DeviceError) -> Finding {
    guard let sum = try sum(of: cluster, &cursor), (try? delta.stamp()) == subject.stamp else {
      return .unknown
    }
    return HashFile.sum(try content.checksum(buffer)) == sum ? .same : .differs
  }

  /// - Throws: `.rotten` for a cluster that is not what it was when its sum was made.
  func require(
    _ cluster: UInt64, _ content: MergeContent, _ buffer: AlignedBuffer, _ cursor: inout Cursor
  ) throws(DeviceError) {
    guard try judge(cluster, content, buffer, &cursor) == .differs else { return }
    throw DeltaHashes.rotten(cluster, content.file)
  }

  static func rotten(_ cluster: UInt64, _ file: ImageFile) -> DeviceError {
    DeviceError(
      .rotten(cluster: cluster),
      "\(file.path): cluster \(cluster) of the disk is not what it was when the delta was hashed")
  }
}

extension MergeContent {
  /// Of all its bytes; what lies behind the end of the file is zero.
  func checksum(_ buffer: AlignedBuffer) throws(DeviceError) -> UInt32 {
    var checksum: UInt32 = 0
    var done: UInt64 = 0
    while done < count {
      let part = buffer.region.slice(0, Int(min(UInt64(buffer.count), count - done)))
      try converting { () throws(IOError) in try file.readOrZero(into: part, at: offset + done) }
      checksum = CRC32C.checksum(part, continuing: checksum)
      done += UInt64(part.count)
    }
    return checksum
  }
}
