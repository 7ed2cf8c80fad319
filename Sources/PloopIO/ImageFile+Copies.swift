internal import CLinux
internal import Glibc

// What a file gets of another one, or of itself, without this process taking the bytes.

extension ImageFile {
  /// Has a range hold what a range of `source` holds now, by sharing its blocks (man 2 ioctl_ficlonerange). Nothing
  /// is read or written; what is written to one of them later the other does not see.
  ///
  /// Once two files have turned out to be unable, they are not asked again.
  ///
  /// - Parameters:
  ///   - place: in `source`; as `offset` and `length` a multiple of the file system's blocks, or it is not done.
  ///   - length: of a range that ends within `source`, and does not overlap with its copy.
  /// - Returns: false where it has to be copied: these files cannot, or there is no room for it, of which copying
  ///   tells more. A part may be shared then.
  package func cloneRange(
    from source: ImageFile, at place: UInt64, to offset: UInt64, length: UInt64
  ) throws(IOError) -> Bool {
    guard !unshareable.withLock({ $0.contains(source.identity) }) else { return false }
    if let probe, !probe.sharesBlocks { return false }
    // Also of one that fails: a part of it may be there.
    defer { noteChange(offset: offset, length: length) }
    while true {
      if let probe,
        let fault = probe.fault(for: .cloneRange(offset: offset, length: length), path: path),
        allowed(fault, of: 1) == nil
      {
        if errno == EINTR { continue }
        return try lacksClone(of: source, endingAt: place + length, at: offset)
      }
      if let probe { return try playClone(probe, source, place, offset, length) }
      if clinux_clone_range(
        source.descriptor.number, off_t(place), descriptor.number, off_t(offset), off_t(length))
        == 0
      {
        return true
      }
      if errno != EINTR { return try lacksClone(of: source, endingAt: place + length, at: offset) }
    }
  }

  /// Whether it is worth trying: false only where it is known that nothing is shared on this file system.
  package var mayShareBlocks: Bool {
    if let probe { return probe.sharesBlocks }
    return clinux_copies_take_room(descriptor.number) == 0
  }

  /// The same of ranges of another file.
  package func mayShareBlocks(of source: ImageFile) -> Bool {
    !unshareable.withLock { $0.contains(source.identity) } && mayShareBlocks
  }

  /// What to make of a call that has just failed.
  ///
  /// - Returns: false, where copying is the way.
  private func lacksClone(
    of source: ImageFile, endingAt end: UInt64, at offset: UInt64
  ) throws(IOError) -> Bool {
    let error = IOError.last("clone range", path, offset: offset)
    switch error.code {
    case EOPNOTSUPP, ENOTTY, ENOSYS, EXDEV, EPERM, EBADF, ETXTBSY, EISDIR: break
    // A file that ends earlier says nothing of other ranges.
    case EINVAL where try source.size() < end: return false
    case EINVAL: break
    // A part of the file system may be full (an allocation group of XFS) where another has room.
    case _ where error.isOutOfSpace: return false
    default: throw error
    }
    unshareable.withLock { _ = $0.insert(source.identity) }
    return false
  }

  /// The same on any file system, for who watches: what the range holds now is written as one call.
  private func playClone(
    _ probe: any IOProbe, _ source: ImageFile, _ place: UInt64, _ offset: UInt64, _ length: UInt64
  ) throws(IOError) -> Bool {
    guard try source.size() >= place + length else { return false }
    let bytes = AlignedBuffer(count: Int(length)).region
    for isReading in [true, false] {
      var done = 0
      while done < bytes.count {
        let count =
          isReading
          ? pread(
            source.descriptor.number, bytes.start + done, bytes.count - done,
            off_t(place) + off_t(done))
          : pwrite(
            descriptor.number, bytes.start + done, bytes.count - done, off_t(offset) + off_t(done))
        if count == 0 { return false }
        if count < 0, errno != EINTR { throw .last("clone range", path, offset: offset) }
        done += max(0, count)
      }
    }
    probe.succeeded(
      .cloneRange(offset: offset, length: length), path: path,
      bytes: UnsafeRawBufferPointer(start: bytes.start, count: bytes.count))
    return true
  }

  /// Copies from another file without taking the bytes into this process; where the file system can
  /// share blocks nothing is copied at all.
  ///
  /// - Returns: bytes copied; fewer than asked for only at the end of `source`. Nil, perhaps with a
  ///   part of them copied, where this cannot be done between these files: read and write them.
  package func copy(
    from source: ImageFile, at place: UInt64, to offset: UInt64, count: Int
  ) throws(IOError) -> Int? {
    // A watched file goes the way on which every byte can be seen.
    guard probe == nil else { return nil }
    defer { noteChange(offset: offset, length: UInt64(count)) }
    var done = 0
    while done < count {
      let copied = clinux_copy_range(
        source.descriptor.number, off_t(place) + off_t(done), descriptor.number,
        off_t(offset) + off_t(done), count - done)
      if copied == 0 { break }
      if copied < 0 {
        switch errno {
        case EINTR: continue
        case EXDEV, EINVAL, EOPNOTSUPP, ENOSYS, EBADF, EPERM: return nil
        default: throw .last("copy", path, offset: offset)
        }
      }
      done += copied
    }
    return done
  }
}
