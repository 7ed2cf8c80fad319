/// Why there can be no new image of these sizes.
package enum NewDiskFault: Error, Equatable, Sendable {
  /// Not a power of two from 4 KiB to 64 MiB.
  case clusterSize
  case empty
  case tooLarge(limitBytes: UInt64)
  /// No whole number of clusters; `nearestBytes` are one or two sizes that would do.
  case misaligned(nearestBytes: [UInt64])
}

extension Geometry {
  /// The sizes of a new image. Existing ones may end within a cluster; new ones do not, since
  /// OpenVZ's tools know no such disk.
  package init(
    newDisk version: ImageVersion, clusterBytes: UInt64, sizeBytes: UInt64
  ) throws(NewDiskFault) {
    let shift = clusterBytes.trailingZeroBitCount
    guard clusterBytes.nonzeroBitCount == 1, Geometry.clusterShifts.contains(shift) else {
      throw .clusterSize
    }
    let limit = Geometry.sizeLimit(version: version, clusterShift: shift)
    guard sizeBytes > 0 else { throw .empty }
    guard sizeBytes <= limit else { throw .tooLarge(limitBytes: limit) }
    guard sizeBytes % clusterBytes == 0 else {
      let below = sizeBytes / clusterBytes * clusterBytes
      throw .misaligned(
        nearestBytes: [below, below + clusterBytes].filter { $0 > 0 && $0 <= limit })
    }
    self.init(version: version, clusterShift: shift, sizeBytes: sizeBytes)
  }

  /// The same disk, larger, with an index that is never shorter than it was.
  ///
  /// - Parameter sizeBytes: more than it has.
  package func grown(to sizeBytes: UInt64) throws(NewDiskFault) -> Geometry {
    let new = try Geometry(newDisk: version, clusterBytes: clusterBytes, sizeBytes: sizeBytes)
    return Geometry(
      version: version, clusterShift: clusterShift, sizeBytes: sizeBytes,
      entryCount: max(entryCount, new.entryCount))
  }
}
