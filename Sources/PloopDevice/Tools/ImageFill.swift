internal import Glibc
internal import PloopFormat
internal import PloopIO

/// Makes a file free of holes, for tools that dislike them.
///
/// Zeroes are written wherever the file has a hole, or space that is reserved but was never written
/// (OpenVZ's `ploop check` minds both), and nothing else is. A range reads as zeroes before, while and after that happens, whatever a crash leaves of it:
/// so the image has the same content at every moment, needs no mark, and filling it again goes on.
package enum ImageFill {
  private static let chunkBytes = 1 << 20

  package struct Progress: Equatable, Sendable {
    package var filledBytes: UInt64
    package var totalBytes: UInt64
  }

  /// - Parameters:
  ///   - source: opened for writing; QEMU's and OpenVZ's locks are taken and held by its file.
  ///   - progress: called before the first write and after each.
  /// - Returns: bytes of holes that were filled.
  /// - Throws: `.locked`, `.outOfSpace` (the image is as valid as before), `.io`, or `.format`:
  ///   unclean images are refused.
  package static func run(
    _ source: DeltaSource, progress: (Progress) -> Void = { _ in }
  ) throws(DeviceError) -> UInt64 {
    let file = source.file
    let descriptorLock = try lock(source)
    defer { withExtendedLifetime(descriptorLock) {} }
    let check = try ImageCheck(file)
    guard !check.isUnclean else {
      throw DeviceError(
        FormatError(
          .unclean, "the image is marked as in use: whoever wrote it last did not close it"),
        level: 0, path: file.path)
    }
    let total = try converting { () throws(IOError) in
      // Extents are known when everything has reached the disk.
      try file.sync()
      return try holeBytes(of: file, size: check.fileBytes)
    }
    // Told before an hour of writing, not after it. Reserved space counts as allocated.
    let missing = check.fileBytes - min(check.fileBytes, check.diskBytes)
    let free = try converting { () throws(IOError) in try source.folder.space().freeBytes }
    guard min(total, missing) <= free else {
      throw DeviceError(
        .outOfSpace,
        "\(file.path): \(min(total, missing)) bytes are needed and \(free) bytes are free")
    }
    try converting { () throws(IOError) in
      try fill(file, size: check.fileBytes, total: total, progress)
      try file.sync()
      guard try holeBytes(of: file, size: check.fileBytes) == 0 else {
        // Some file systems turn written zeroes into holes.
        throw IOError("fill", path: file.path, code: EOPNOTSUPP)
      }
    }
    return total
  }

  private static func lock(_ source: DeltaSource) throws(DeviceError) -> DescriptorLock? {
    do throws(LockError) {
      try ImageLock.acquire(source.file, for: .write)
      return try DescriptorLock.acquire(in: source.folder, exclusive: true)
    } catch {
      throw DeviceError(error)
    }
  }

  private static func fill(
    _ file: ImageFile, size: UInt64, total: UInt64, _ progress: (Progress) -> Void
  ) throws(IOError) {
    let zeroes = AlignedBuffer(count: chunkBytes).region
    var filled: UInt64 = 0
    progress(Progress(filledBytes: 0, totalBytes: total))
    try forEachHole(of: file, size: size) { (hole) throws(IOError) in
      var offset = hole.lowerBound
      while offset < hole.upperBound {
        let count = min(UInt64(chunkBytes), hole.upperBound - offset)
        try file.write(zeroes.slice(0, Int(count)), at: offset)
        offset += count
        filled += count
        progress(Progress(filledBytes: filled, totalBytes: total))
      }
    }
  }

  private static func holeBytes(of file: ImageFile, size: UInt64) throws(IOError) -> UInt64 {
    var bytes: UInt64 = 0
    try forEachHole(of: file, size: size) { (hole) throws(IOError) in
      bytes += hole.upperBound - hole.lowerBound
    }
    return bytes
  }

  private static func forEachHole(
    of file: ImageFile, size: UInt64, _ body: (Range<UInt64>) throws(IOError) -> Void
  ) throws(IOError) {
    var offset: UInt64 = 0
    while let hole = try file.nextUnwritten(from: offset, before: size) {
      try body(hole)
      offset = hole.upperBound
    }
  }
}
