internal import CLinux
internal import Glibc

extension ImageFile {
  /// The next range in which nothing was ever written: a hole, or space that is only reserved.
  ///
  /// The file system is asked for its extents: SEEK_HOLE takes reserved space for data as soon as
  /// somebody has read it into the page cache. Where there is no such list (tmpfs, FUSE) only holes
  /// are found. What somebody has written but not synced is synced first, since the list knows only of what
  /// is on its way to the disk.
  ///
  /// - Returns: nil when everything from `offset` to `end` is written.
  package func nextUnwritten(
    from offset: UInt64, before end: UInt64
  ) throws(IOError) -> Range<UInt64>? {
    var place = offset
    while place < end {
      var extent = clinux_extent()
      switch withDescriptor({ clinux_next_extent($0, place, &extent) }) {
      case 0: return place..<end
      case 1:
        guard extent.offset <= place else { return place..<min(extent.offset, end) }
        let extentEnd = extent.offset + min(extent.length, end - extent.offset)
        if extent.is_unwritten != 0 { return place..<extentEnd }
        place = extentEnd
      default:
        let error = IOError.last("list extents", path, offset: place)
        guard error.isUnsupported || error.code == ENOTTY else { throw error }
        return nextHoleRange(from: place, before: end)
      }
    }
    return nil
  }

  private func nextHoleRange(from offset: UInt64, before end: UInt64) -> Range<UInt64>? {
    guard let start = nextHole(from: offset), start < end else { return nil }
    return start..<min(nextData(from: start) ?? end, end)
  }
}
