internal import PloopFormat
internal import PloopIO

/// Safe repair of an image that was not closed: nothing that anything references is touched.
///
/// It is run only after the whole chain has been checked, and each step may be repeated. In order:
/// the old header and index are saved beside the image, unless there is no room for that and no entry
/// changes; slots behind the disk's end are zeroed; the tail that nothing references is cut; the mark
/// is cleared and a damaged extension dropped, in one sector write. Entries that are wrong in any other
/// way were refused before (`image-corrupt`).
enum Repair {
  static let backupSuffix = ".index-backup"

  /// - Returns: what was done, in words; nothing when the image was closed properly.
  static func run(
    _ level: inout ChainOpener.Level, isTop: Bool
  ) throws(DeviceError) -> [String] {
    guard var header = level.header, case .ploop(let geometry) = level.layout else { return [] }
    let path = level.source.file.path
    let wasUnclean = level.isUnclean
    let dropped =
      level.hasExtension ? ["\(path): dropped the format extension (dirty bitmaps)"] : []
    guard wasUnclean || !level.tailPages.isEmpty else {
      // A top is marked and its extension dropped by attach itself; a lower delta is left alone.
      return isTop ? dropped : []
    }
    var done: [String] = []
    // The caller opened lower deltas for reading only.
    let file = try converting { () throws(IOError) in
      level.source.file.isWritable
        ? level.source.file : try level.source.folder.open(level.source.name, writable: true)
    }
    do throws(DeviceError) {
      try SavedIndex(level.source.name + backupSuffix, in: level.source.folder).save(
        level.source.file, bytes: geometry.headerBytes)
      done.append("\(path): saved header and index as \(level.source.name)\(backupSuffix)")
    } catch {
      // A full file system must not keep a disk from coming back of which no entry is changed.
      guard error.lacksRoom, level.tailPages.isEmpty else { throw error }
      done.append("\(path): no room to save header and index, of which no entry is changed")
    }
    if !level.tailPages.isEmpty {
      try zeroTail(of: file, geometry)
      done.append("\(path): zeroed index slots behind the disk's end")
      level.tailPages = []
    }
    let needed = UInt64((level.used.lastSet ?? 0) + 1) << UInt64(geometry.clusterShift)
    if level.fileBytes > needed {
      try converting { () throws(IOError) in
        try file.truncate(to: needed)
        try file.sync()
      }
      done.append("\(path): cut \(level.fileBytes - needed) bytes that nothing references")
      level.fileBytes = needed
      level.used.resize(to: Int(needed >> UInt64(geometry.clusterShift)))
    }
    header.inUse = Header.InUse.closed
    header.extensionSector = 0
    header.flags =
      level.mapped == 0 ? header.flags | Header.Flags.empty : header.flags & ~Header.Flags.empty
    level.header = header
    done += dropped
    if wasUnclean { done.append("\(path): cleared the in-use mark") }
    // The top is marked again at once, durably; clearing it first would only open a window.
    if !isTop { try Device.write(header, to: file) }
    return done
  }

  /// Zeroes every slot from the disk's last cluster to the end of the header's clusters.
  private static func zeroTail(of file: ImageFile, _ geometry: Geometry) throws(DeviceError) {
    try converting { () throws(IOError) in
      try file.writeZeroes(
        from: (Geometry.headerSlots + geometry.clusterCount) * 4, to: geometry.headerBytes)
      try file.sync()
    }
  }
}
