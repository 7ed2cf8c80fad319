package import PloopFormat

// Which sizes a disk can have.

extension Resize {
  /// What a disk would be.
  ///
  /// - Parameter sizeBytes: at least the present size, and a whole number of clusters if it is another.
  /// - Throws: `.shrinks`; `.size` with what is wrong with it.
  package static func target(
    of geometry: Geometry, sizeBytes: UInt64
  ) throws(DeviceError) -> Geometry {
    guard sizeBytes != geometry.sizeBytes else { return geometry }
    guard sizeBytes > geometry.sizeBytes else {
      throw DeviceError(
        .shrinks, "the disk has \(geometry.sizeBytes) bytes; it cannot shrink to \(sizeBytes)")
    }
    do throws(NewDiskFault) { return try geometry.grown(to: sizeBytes) } catch {
      throw DeviceError(
        .size(error),
        "a disk with clusters of \(geometry.clusterBytes) bytes cannot have \(sizeBytes) bytes")
    }
  }
}
