internal import CLinux
internal import Glibc

/// How much room there is on a file system.
package struct FilesystemSpace: Equatable, Sendable {
  /// What an ordinary process may still use.
  package let freeBytes: UInt64
  package let totalBytes: UInt64
  /// Whether a copy of what is there takes as much room again; not where blocks may be shared.
  package let copiesTakeRoom: Bool

  package init(freeBytes: UInt64, totalBytes: UInt64, copiesTakeRoom: Bool = true) {
    self.freeBytes = freeBytes
    self.totalBytes = totalBytes
    self.copiesTakeRoom = copiesTakeRoom
  }

  init(around descriptor: Int32, _ path: String) throws(IOError) {
    var status = statvfs()
    guard fstatvfs(descriptor, &status) == 0 else { throw .last("statvfs", path) }
    func bytes(_ blocks: fsblkcnt_t) -> UInt64 {
      let (bytes, overflow) = UInt64(blocks).multipliedReportingOverflow(
        by: UInt64(status.f_frsize))
      return overflow ? .max : bytes
    }
    freeBytes = bytes(status.f_bavail)
    totalBytes = bytes(status.f_blocks)
    copiesTakeRoom = clinux_copies_take_room(descriptor) != 0
  }
}

extension ImageFile {
  /// Of the file system that the file lies on, whatever is mounted above it.
  package func space() throws(IOError) -> FilesystemSpace {
    try withDescriptor { number in
      Result { () throws(IOError) in try FilesystemSpace(around: number, path) }
    }.get()
  }
}
