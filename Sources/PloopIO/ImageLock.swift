internal import CLinux
internal import Glibc

/// Why a lock could not be had.
package enum LockError: Error, Sendable {
  /// Somebody else, QEMU or another ploopd, has the image open in a way that excludes this one.
  case held(path: String)
  case failed(IOError)
}

/// The locks that QEMU and ploopd both honour on an image: open-file-description locks on single
/// bytes beyond 100 (QEMU's block/file-posix.c). Byte 100+n says "I have permission n", byte 200+n
/// says "nobody else may have it". They vanish with the ``ImageFile``, and however the process ends.
package enum ImageLock {
  private enum Permission: off_t, CaseIterable {
    case consistentRead = 0
    case write = 1
    case resize = 3
  }

  /// What the holder does with the image.
  package enum Use: Sendable {
    /// Reads, and nobody may write meanwhile.
    case read
    /// Reads, writes and changes the size; others may not even read, since a half-written index
    /// is no image.
    case write
  }

  /// Takes the locks for `use`, or throws and holds none of them.
  package static func acquire(_ file: ImageFile, for use: Use) throws(LockError) {
    let has: [Permission] = use == .write ? [.consistentRead, .write, .resize] : [.consistentRead]
    let denies: [Permission] =
      use == .write ? [.consistentRead, .write, .resize] : [.write, .resize]
    file.noteLocks()
    // Take first, look then: of two that start at the same moment at least one sees the other.
    for byte in has.map({ 100 + $0.rawValue }) + denies.map({ 200 + $0.rawValue }) {
      guard file.withDescriptor({ clinux_ofd_lock($0, byte, 1, 0) }) == 0 else {
        let code = errno
        release(file)
        guard code == EAGAIN || code == EACCES else {
          throw .failed(IOError("lock", path: file.path, code: code))
        }
        throw .held(path: file.path)
      }
    }
    for byte in has.map({ 200 + $0.rawValue }) + denies.map({ 100 + $0.rawValue }) {
      let conflict = file.withDescriptor { clinux_ofd_conflict($0, byte, 1) }
      guard conflict == 0 else {
        let code = errno
        release(file)
        guard conflict == 1 else {
          throw .failed(IOError("lock", path: file.path, code: code))
        }
        throw .held(path: file.path)
      }
    }
  }

  package static func release(_ file: ImageFile) {
    _ = file.withDescriptor { clinux_ofd_unlock($0, 100, 4) }
    _ = file.withDescriptor { clinux_ofd_unlock($0, 200, 4) }
  }
}
