internal import CLinux
internal import Glibc
internal import Synchronization

/// An open image. Every read, write, sync, truncation and punch of an image is a method of this
/// type, at the system call, so that one place can record them and fail them (``IOProbe``).
package final class ImageFile: Sendable {
  package let path: String
  package let isWritable: Bool
  package let identity: FileIdentity
  let descriptor: OwnedDescriptor
  let probe: (any IOProbe)?
  private let isWatched = Atomic<Bool>(false)
  private let watcher = Observer<Range<UInt64>>()
  /// Files with which this one cannot share blocks (`ImageFile+Copies.swift`).
  let unshareable = Locked<Set<FileIdentity>>([])
  /// Whether there may be a lock of ``ImageLock`` on it.
  private let hasLocks = Atomic<Bool>(false)

  /// The last byte that a file of this system can hold, plus one.
  package static let sizeLimit = UInt64(Int64.max)

  package init(
    _ descriptor: consuming OwnedDescriptor, path: String, isWritable: Bool,
    probe: (any IOProbe)? = nil
  ) throws(IOError) {
    var status = stat()
    guard fstat(descriptor.number, &status) == 0 else { throw .last("fstat", path) }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw IOError("open", path: path, code: status.st_mode & S_IFMT == S_IFDIR ? EISDIR : EINVAL)
    }
    self.path = path
    self.isWritable = isWritable
    identity = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    self.descriptor = descriptor
    self.probe = probe
  }

  /// Closing would not do: a child between fork and exec shares the lock.
  deinit { if hasLocks.load(ordering: .relaxed) { ImageLock.release(self) } }

  func noteLocks() { hasLocks.store(true, ordering: .relaxed) }

  // MARK: Reading

  /// Reads until the region is full or the file ends.
  ///
  /// - Returns: bytes read; less than the region's count only at the end of the file.
  package func read(into region: ByteRegion, at offset: UInt64) throws(IOError) -> Int {
    var done = 0
    while done < region.count {
      let place = offset + UInt64(done)
      var wanted = region.count - done
      let count: Int
      if let probe, let fault = probe.fault(for: .read(offset: place, count: wanted), path: path) {
        guard let limit = allowed(fault, of: wanted) else {
          if errno == EINTR { continue }
          throw .last("read", path, offset: place)
        }
        wanted = limit
      }
      count = pread(descriptor.number, region.start + done, wanted, off_t(place))
      if count < 0 {
        if errno == EINTR { continue }
        throw .last("read", path, offset: place)
      }
      if count == 0 { break }
      done += count
    }
    return done
  }

  /// Fills the region; what lies beyond the end of the file reads as zeroes.
  package func readOrZero(into region: ByteRegion, at offset: UInt64) throws(IOError) {
    let count = try read(into: region, at: offset)
    if count < region.count { region.slice(count, region.count - count).zero() }
  }

  /// Fills the region from the page cache, without ever waiting for a disk.
  ///
  /// - Returns: false when not all of it is there now, or when this file system cannot tell.
  package func readNow(into region: ByteRegion, at offset: UInt64) -> Bool {
    // A watched file goes the way on which faults can be reported.
    guard probe == nil else { return false }
    return clinux_pread_now(descriptor.number, region.start, region.count, off_t(offset))
      == region.count
  }

  /// Lends a range of the file if the page cache has all of it.
  ///
  /// - Returns: nil when it has not, or nobody can tell.
  func lendNow(_ count: Int, at offset: UInt64) -> FilePiece? {
    guard probe == nil, count > 0, offset <= ImageFile.sizeLimit - UInt64(count) else { return nil }
    let last = offset + UInt64(count) - 1
    let pages = (last >> ImageFile.pageShift) - (offset >> ImageFile.pageShift) + 1
    guard
      clinux_cached_pages(descriptor.number, off_t(offset), off_t(count)) == Int64(pages)
    else { return nil }
    // Pages that are being read, or could not be, are cached as well; they come in runs.
    var byte: UInt8 = 0
    for place in [offset, last]
    where clinux_pread_now(descriptor.number, &byte, 1, off_t(place)) != 1 {
      return nil
    }
    return FilePiece(descriptor: descriptor.number, offset: offset, count: count)
  }

  /// The pages of every machine that Swift runs on here; a wrong one only means that nothing is lent.
  private static let pageShift: UInt64 = 12

  /// What may be made of a read that somebody else carries out (``ReadLane``).
  enum Permit {
    case bytes(Int)
    case fails(Int32)
    /// A fault makes it wait, which the caller must not.
    case waits
  }

  func permit(readOf count: Int, at offset: UInt64) -> Permit {
    guard let probe, let fault = probe.fault(for: .read(offset: offset, count: count), path: path)
    else { return .bytes(count) }
    switch fault {
    case .error(let code): return .fails(code)
    case .short: return .bytes(max(1, count / 2))
    case .stall: return .waits
    }
  }

  // MARK: Watching

  /// Has somebody told of every range of the file that is changed from now on, after its bytes are
  /// there and before whoever changed it goes on. Nil ends it. A file that nobody watches pays one
  /// load and one branch for each change.
  package func watchChanges(_ watcher: (@Sendable (Range<UInt64>) -> Void)?) {
    self.watcher.set(watcher)
    isWatched.store(watcher != nil, ordering: .sequentiallyConsistent)
  }

  /// The range reads differently from now on, or may.
  @inline(__always)
  package func noteChange(offset: UInt64, length: UInt64) {
    guard isWatched.load(ordering: .acquiring) else { return }
    tellWatcher(offset..<offset + length)
  }

  @inline(never)
  private func tellWatcher(_ range: Range<UInt64>) {
    if !range.isEmpty { watcher.tell(range) }
  }

  // MARK: Writing

  package func write(_ region: ByteRegion, at offset: UInt64) throws(IOError) {
    // Also of a write that fails: a part of it may be there.
    defer { noteChange(offset: offset, length: UInt64(region.count)) }
    var done = 0
    while done < region.count {
      let place = offset + UInt64(done)
      var wanted = region.count - done
      if let probe, let fault = probe.fault(for: .write(offset: place, count: wanted), path: path) {
        guard let limit = allowed(fault, of: wanted) else {
          if errno == EINTR { continue }
          throw .last("write", path, offset: place)
        }
        wanted = limit
      }
      let count = pwrite(descriptor.number, region.start + done, wanted, off_t(place))
      if count < 0 {
        if errno == EINTR { continue }
        throw .last("write", path, offset: place)
      }
      probe?.succeeded(
        .write(offset: place, count: count), path: path,
        bytes: UnsafeRawBufferPointer(start: region.start + done, count: count))
      done += count
    }
  }

  /// Has the range be on its way to the disk, so that a later ``sync()`` finds little left to do. It
  /// promises nothing by itself.
  package func beginWriteback(offset: UInt64, length: UInt64) {
    _ = clinux_begin_writeback(descriptor.number, off_t(offset), off_t(length))
  }

  /// Makes everything written so far durable, and the size with it (man 2 fdatasync).
  ///
  /// - Parameter times: also when it was changed last (man 2 fsync).
  package func sync(times: Bool = false) throws(IOError) {
    probe?.syncStarts(path: path)
    guard times else {
      return try perform("fdatasync", .sync) { fdatasync(descriptor.number) }
    }
    try perform("fsync", .sync) { fsync(descriptor.number) }
  }

  package func truncate(to size: UInt64) throws(IOError) {
    try perform("ftruncate", .truncate(size: size), at: size) {
      ftruncate(descriptor.number, off_t(size))
    }
  }

  /// Reserves space; the file grows where the range passes its end, and new bytes are zero.
  package func allocate(offset: UInt64, length: UInt64) throws(IOError) {
    try perform("fallocate", .allocate(offset: offset, length: length), at: offset) {
      clinux_allocate(descriptor.number, off_t(offset), off_t(length))
    }
  }

  /// Gives the space of the range back; it reads as zeroes.
  package func punchHole(offset: UInt64, length: UInt64) throws(IOError) {
    defer { noteChange(offset: offset, length: length) }
    try perform("punch hole", .punchHole(offset: offset, length: length), at: offset) {
      clinux_punch_hole(descriptor.number, off_t(offset), off_t(length))
    }
  }

  /// Makes the range read as zeroes and keeps its space.
  package func zeroRange(offset: UInt64, length: UInt64) throws(IOError) {
    defer { noteChange(offset: offset, length: length) }
    try perform("zero range", .zeroRange(offset: offset, length: length), at: offset) {
      clinux_zero_range(descriptor.number, off_t(offset), off_t(length))
    }
  }

  // MARK: Facts

  package func size() throws(IOError) -> UInt64 {
    var status = stat()
    guard fstat(descriptor.number, &status) == 0 else { throw .last("fstat", path) }
    return UInt64(max(0, status.st_size))
  }

  /// What tells the file from another, and from itself after a change.
  package func stamp() throws(IOError) -> FileStamp {
    var status = stat()
    guard fstat(descriptor.number, &status) == 0 else { throw .last("fstat", path) }
    let actual = FileStamp(
      inode: UInt64(status.st_ino), sizeBytes: UInt64(max(0, status.st_size)),
      seconds: Int64(status.st_mtim.tv_sec),
      nanoseconds: UInt32(clamping: status.st_mtim.tv_nsec))
    return probe?.stamp(actual, path: path) ?? actual
  }

  /// Bytes of disk that the file takes.
  package func allocatedBytes() throws(IOError) -> UInt64 {
    var status = stat()
    guard fstat(descriptor.number, &status) == 0 else { throw .last("fstat", path) }
    return UInt64(max(0, status.st_blocks)) * 512
  }

  /// The first byte at or behind `offset` that lies in an allocated extent, or nil.
  package func nextData(from offset: UInt64) -> UInt64? {
    let place = clinux_seek_data(descriptor.number, off_t(offset))
    return place < 0 ? nil : UInt64(place)
  }

  /// The first byte at or behind `offset` that lies in a hole; the end of the file counts as one.
  package func nextHole(from offset: UInt64) -> UInt64? {
    let place = clinux_seek_hole(descriptor.number, off_t(offset))
    return place < 0 ? nil : UInt64(place)
  }

  /// Forgets what the page cache holds, so that the next read sees what the disk has.
  package func dropFromPageCache() {
    _ = posix_fadvise(descriptor.number, 0, 0, POSIX_FADV_DONTNEED)
  }

  /// Says that reads follow no order: nothing is read that was not asked for. So the page cache
  /// holds small pieces of this file, into which small writes are several times cheaper than into the
  /// large ones that reading ahead makes (docs/performance.md, "Overwrites").
  package func expectRandomAccess() {
    _ = posix_fadvise(descriptor.number, 0, 0, POSIX_FADV_RANDOM)
  }

  /// Leaves it to the kernel again what to read ahead.
  package func expectAnyAccess() {
    _ = posix_fadvise(descriptor.number, 0, 0, POSIX_FADV_NORMAL)
  }

  /// Starts reading the range into the page cache, without waiting for it.
  package func readAhead(offset: UInt64, length: UInt64) {
    _ = posix_fadvise(descriptor.number, off_t(offset), off_t(length), POSIX_FADV_WILLNEED)
  }

  // MARK: Locks (ImageLock.swift)

  package func withDescriptor<Result>(_ body: (Int32) -> Result) -> Result {
    body(descriptor.number)
  }

  // MARK: Probing

  /// Makes a call that transfers nothing, again when a signal interrupts it.
  private func perform(
    _ name: StaticString, _ operation: IOOperation, at offset: UInt64? = nil, _ call: () -> Int32
  ) throws(IOError) {
    while true {
      if let probe, let fault = probe.fault(for: operation, path: path),
        allowed(fault, of: 1) == nil
      {
        if errno == EINTR { continue }
        throw .last(name, path, offset: offset)
      }
      if call() == 0 { break }
      if errno == EINTR { continue }
      throw .last(name, path, offset: offset)
    }
    probe?.succeeded(operation, path: path, bytes: UnsafeRawBufferPointer(start: nil, count: 0))
  }

  /// How many of `count` bytes a faulty call may transfer; nil when it fails, with `errno` set.
  func allowed(_ fault: IOFault, of count: Int) -> Int? {
    switch fault {
    case .error(let code):
      errno = code
      return nil
    case .short: return max(1, count / 2)
    case .stall(let wait):
      wait()
      return count
    }
  }
}

/// Which file it is, how long, and when its bytes were changed last.
package struct FileStamp: Equatable, Sendable {
  package var inode: UInt64
  package var sizeBytes: UInt64
  package var seconds: Int64
  package var nanoseconds: UInt32

  package init(inode: UInt64, sizeBytes: UInt64, seconds: Int64, nanoseconds: UInt32) {
    self.inode = inode
    self.sizeBytes = sizeBytes
    self.seconds = seconds
    self.nanoseconds = nanoseconds
  }
}

/// Which file it is, whatever name it was opened by.
package struct FileIdentity: Hashable, Sendable {
  package let device: UInt64
  package let inode: UInt64
}
