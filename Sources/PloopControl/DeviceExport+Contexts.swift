internal import PloopDevice
package import PloopNBD

// What BLOCK_STATUS tells beside the allocation: the deltas' depths, and what was written since
// checkpoints. Of a frozen disk it is what its backup is to copy.

extension DeviceExport {
  package var contexts: [Context] {
    if let frozen { return [.allocation] + (frozen.since.map { [.dirtyBitmap($0.name)] } ?? []) }
    return [.allocation, .depth] + device.checkpoints.map { .dirtyBitmap($0.name) }
  }

  package func depths(
    offset: UInt64, length: UInt64, limit: Int
  ) throws(NBDError) -> [(length: UInt64, depth: Int)] {
    Self.merged(
      try serving { () throws(DeviceError) in
        try device.depths(offset: offset, length: length, limit: limit)
      }, where: { $0.depth == $1.depth }, \.length)
  }

  package func dirtyRuns(
    of bitmap: String, offset: UInt64, length: UInt64, limit: Int
  ) throws(NBDError) -> [(length: UInt64, isDirty: Bool)] {
    if let frozen {
      return frozen.wantedRuns(offset: offset, length: length, limit: limit)
    }
    guard let checkpoint = try? device.checkpoint(bitmap) else {
      // It was removed: nobody may take that for nothing having been written.
      return [(length, true)]
    }
    return checkpoint.runs(of: offset..<offset + length, limit: limit).map {
      ($0.length, $0.isDirty)
    }
  }

  /// Neighbours that are alike, as one.
  private static func merged<Run>(
    _ runs: [Run], where areAlike: (Run, Run) -> Bool, _ length: WritableKeyPath<Run, UInt64>
  ) -> [Run] {
    runs.reduce(into: []) { merged, run in
      if let last = merged.last, areAlike(last, run) {
        merged[merged.count - 1][keyPath: length] += run[keyPath: length]
      } else {
        merged.append(run)
      }
    }
  }
}
