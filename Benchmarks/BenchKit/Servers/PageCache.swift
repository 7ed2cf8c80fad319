internal import Glibc
internal import PloopIO

/// What the kernel keeps of files. Without care for it the disk is measured, not the servers.
enum PageCache {
  /// Writes a file's content to the disk and forgets it. What is pinned stays.
  ///
  /// - Parameter from: the first byte to forget.
  static func drop(_ path: String, from: Int = 0) throws(BenchFailure) {
    let number = open(path, O_RDONLY | O_CLOEXEC)
    guard number >= 0 else { throw BenchFailure(IOError.last("open", path).description) }
    defer { close(number) }
    guard fsync(number) == 0 else { throw BenchFailure(IOError.last("fsync", path).description) }
    posix_fadvise(number, off_t(from), 0, Int32(POSIX_FADV_DONTNEED))
  }
}

/// Keeps the beginning of a file in the page cache: kernels with DAMON drop clean pages while gigabytes
/// are free, and the next server would read them from the disk.
///
/// Read the range through the server first. Locking takes the folios that are there; what is missing it
/// would read in folios of other sizes, and the cost of overwriting depends on those.
final class PinnedRange {
  private let start: UnsafeMutableRawPointer
  private let count: Int
  /// False where the system does not let us lock as much.
  let isPinned: Bool

  init(_ path: String, bytes: Int) throws(BenchFailure) {
    let number = open(path, O_RDONLY | O_CLOEXEC)
    guard number >= 0 else { throw BenchFailure(IOError.last("open", path).description) }
    defer { close(number) }
    var status = stat()
    guard fstat(number, &status) == 0 else {
      throw BenchFailure(IOError.last("fstat", path).description)
    }
    count = min(bytes, Int(status.st_size))
    guard let start = mmap(nil, count, PROT_READ, MAP_SHARED, number, 0), start != MAP_FAILED else {
      throw BenchFailure(IOError.last("mmap", path).description)
    }
    self.start = start
    isPinned = mlock(start, count) == 0
  }

  deinit { munmap(start, count) }
}

/// Memory that is free.
enum FreeMemory {
  /// Uses memory and frees it again, so that what is allocated next is there already.
  ///
  /// Hypervisors take back what a guest has freed for seconds (free page reporting); the first use of
  /// such a page then costs three times as much, and it costs whoever is measured first.
  static func warm(bytes: Int) {
    let start = mmap(
      nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)
    // Where there is not as much, measuring goes on without.
    if let start, start != MAP_FAILED { munmap(start, bytes) }
  }
}
