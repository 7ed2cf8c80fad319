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
  private static let chunkBytes = 1 << 20

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
      try saveIndex(of: level, geometry)
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

  /// Copies header and index to a file of their own, only what is not zero.
  private static func saveIndex(
    of level: ChainOpener.Level, _ geometry: Geometry
  ) throws(DeviceError) {
    let folder = level.source.folder
    let name = level.source.name + backupSuffix
    let temporary = name + ".tmp"
    if folder.contains(temporary) {
      try converting { () throws(IOError) in try folder.unlink(temporary) }
    }
    do throws(IOError) {
      let copy = try folder.create(temporary)
      try copy.truncate(to: geometry.headerBytes)
      let buffer = AlignedBuffer(count: Int(min(UInt64(chunkBytes), geometry.headerBytes)))
      var start: UInt64 = 0
      while start < geometry.headerBytes {
        let chunk = buffer.region.slice(
          0, Int(min(UInt64(buffer.count), geometry.headerBytes - start)))
        try level.source.file.readOrZero(into: chunk, at: start)
        if !chunk.isZero { try copy.write(chunk, at: start) }
        start += UInt64(chunk.count)
      }
      try copy.sync()
      try folder.rename(temporary, to: name)
      try folder.sync()
    } catch {
      // Half a copy is in the way of those who need the room.
      try? folder.unlink(temporary)
      throw DeviceError(error)
    }
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
