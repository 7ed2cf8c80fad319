internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// An image: its header, its index, and what the header points to.
///
/// Input: how many times 64 KiB the file has at least, in six bits of a byte; then its first bytes.
enum ImageTarget {
  private static let name = "top.hds"

  static func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let sizeBytes = UInt64(head.byte() & 63) << 16
    let bytes = head.body
    let folder = try FuzzFolder()
    try folder.put(name, bytes, sizeBytes: sizeBytes)
    let file = try folder.folder.open(name, writable: false)
    defer { ImageLock.release(file) }
    let geometry = try header(bytes, fileBytes: try file.size())
    let check: ImageCheck
    do {
      check = try ImageCheck(file)
    } catch {
      guard case .format = error.kind else { throw error }
      return try promise(geometry == nil, "a check refuses what the header allows: \(error)")
    }
    try promise(check.geometry == geometry, "the check and the header differ")
    let source = DeltaSource(file: file, folder: folder.folder, name: name)
    let map: ImageMap
    do { map = try ImageMap([source]) } catch {
      return try promise(check.verdict == .corrupt, "\(check.verdict), and refused: \(error)")
    }
    try promise(!check.faults.contains { $0.kind != .beyondDisk }, "a map of wrong entries")
    var end: UInt64 = 0
    var mapped: UInt64 = 0
    try map.forEachRun { (run) throws(BrokenPromise) in
      guard run.start == end else { throw BrokenPromise(description: "a gap before \(run.start)") }
      end += run.length
      if run.place != nil { mapped += run.length }
    }
    try promise(end == check.geometry.sizeBytes, "the map ends at \(end)")
    let clusters = check.mappedClusters << UInt64(check.geometry.clusterShift)
    try promise(mapped <= clusters, "\(mapped) bytes in \(check.mappedClusters) clusters")
  }

  /// - Returns: nil where there is no header that describes such a file.
  private static func header(_ bytes: [UInt8], fileBytes: UInt64) throws -> Geometry? {
    let start = bytes.prefix(Header.byteCount)
    let zeroes = [UInt8](repeating: 0, count: Header.byteCount - start.count)
    // A file that is shorter than it seems has zeroes there.
    let readable = Int(min(fileBytes, UInt64(Header.byteCount)))
    guard let header = try? Header(parsing: Array((start + zeroes).prefix(readable))) else {
      return nil
    }
    try promise(
      try Header(parsing: header.encoded) == header, "a header changes when it is written")
    guard let geometry = try? header.geometry(fileBytes: fileBytes) else { return nil }
    var other = header
    other.markOpen()
    try promise(!other.isClean, "a header that is marked is clean")
    other.resize(to: geometry)
    try promise(
      try other.geometry(fileBytes: .max) == geometry, "a header of the same size has another")
    let new = Header(new: geometry)
    try promise(
      try new.geometry(fileBytes: geometry.headerBytes) == geometry, "a new header has another")
    return geometry
  }
}
