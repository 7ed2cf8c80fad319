internal import PloopFormat
internal import PloopIO

/// Checksums of a delta's clusters, in a file beside it, and of which file they are.
///
/// Page 0 names the delta: inode, length, time of the last change, and the bytes of its header. Each page
/// behind it has the sums (CRC-32C) of 1,023 clusters in their order, and as its last word its own; of a
/// cluster that the delta does not map the sum is 0. A page that is all zero says nothing.
enum HashFile {
  static let suffix = ".hashes"
  static let sumsPerPage: UInt64 = 1023
  private static let signature = Array("ploopd hashes v1".utf8)

  /// What a file of sums has to be of.
  struct Subject: Equatable {
    var stamp: FileStamp
    var clusterShift: Int
    var clusterCount: UInt64
    /// Zeroes for a raw base.
    var header: [UInt8]

    init(_ file: ImageFile, isRaw: Bool, _ geometry: Geometry) throws(DeviceError) {
      clusterShift = geometry.clusterShift
      clusterCount = geometry.clusterCount
      let buffer = AlignedBuffer(count: Header.byteCount)
      stamp = try converting { () throws(IOError) in
        if !isRaw { try file.readOrZero(into: buffer.region, at: 0) }
        return try file.stamp()
      }
      header = buffer.region.bytes
    }

    /// The SHA-256 of all of it.
    var digest: String { SHA256.hexDigest(page.bytes) }

    fileprivate var page: ByteRegion {
      let page = AlignedBuffer(count: Geometry.pageBytes).region
      page.copy(from: AlignedBuffer(HashFile.signature).region)
      page.setLittleEndian(stamp.inode, at: 16)
      page.setLittleEndian(stamp.sizeBytes, at: 24)
      page.setLittleEndian(stamp.seconds, at: 32)
      page.setLittleEndian(stamp.nanoseconds, at: 40)
      page.setLittleEndian(UInt32(clusterShift), at: 44)
      page.setLittleEndian(clusterCount, at: 48)
      page.copy(from: AlignedBuffer(header).region, at: 64)
      HashFile.seal(page)
      return page
    }
  }

  /// The sum of a cluster's bytes; 0 stands for none.
  static func sum(_ checksum: UInt32) -> UInt32 { checksum == 0 ? .max : checksum }

  static func seal(_ page: ByteRegion) {
    let end = page.count - 4
    page.setLittleEndian(CRC32C.checksum(page.slice(0, end)), at: end)
  }

  static func isSealed(_ page: ByteRegion) -> Bool {
    let end = page.count - 4
    return page.littleEndian(at: end, as: UInt32.self) == CRC32C.checksum(page.slice(0, end))
  }

  static func offset(ofPage page: UInt64) -> UInt64 { (page + 1) * UInt64(Geometry.pageBytes) }

  /// Opens the sums beside a delta.
  ///
  /// - Returns: nil where there are none, or none of the file as it is now.
  static func open(
    beside source: DeltaSource, of subject: Subject
  ) throws(DeviceError) -> ImageFile? {
    guard source.folder.contains(source.name + suffix) else { return nil }
    let page = AlignedBuffer(count: Geometry.pageBytes).region
    let file = try converting { () throws(IOError) in
      let file = try source.folder.open(source.name + suffix, writable: false)
      try file.readOrZero(into: page, at: 0)
      return file
    }
    return page.equals(subject.page) ? file : nil
  }

  /// Sums of a file that is about to be written are of no use, and must not be believed whatever its times
  /// say.
  static func remove(beside source: DeltaSource) throws(DeviceError) {
    try converting { () throws(IOError) in
      try source.folder.removeIfThere(source.name + suffix)
    }
  }

  /// The name of a file of sums that lies beside an image.
  static func name(beside image: String) -> String { image + suffix }

  /// Sums that are being made, under a name that means nothing.
  struct Draft {
    private let file: ImageFile
    private let folder: ImageFolder
    private let name: String

    init(beside source: DeltaSource) throws(DeviceError) {
      folder = source.folder
      name = source.name + HashFile.suffix
      let (folder, temporary) = (folder, "\(name).tmp")
      file = try converting { () throws(IOError) in
        try folder.removeIfThere(temporary)
        return try folder.create(temporary)
      }
    }

    /// - Parameter page: with its sums; it is sealed here.
    func write(_ page: ByteRegion, number: UInt64) throws(DeviceError) {
      HashFile.seal(page)
      try converting { () throws(IOError) in
        try file.write(page, at: HashFile.offset(ofPage: number))
      }
    }

    /// They are the sums of the subject from now on, durably.
    func publish(of subject: Subject) throws(DeviceError) {
      try converting { () throws(IOError) in
        try file.write(subject.page, at: 0)
        try file.sync()
        try folder.rename("\(name).tmp", to: name)
        try folder.sync()
      }
    }

    func discard() { try? folder.unlink("\(name).tmp") }
  }
}
