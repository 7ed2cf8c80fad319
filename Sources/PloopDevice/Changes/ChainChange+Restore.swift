package import PloopFormat
package import PloopIO

// A disk that gets all of its content anew (docs/crash-safety.md, "A restore into a disk").

extension ChainChange {
  /// Gives a disk that nobody has attached another top, and removes the one that it had.
  ///
  /// - Parameters:
  ///   - name: of the new one's image in the descriptor's folder, whole and closed. It is the caller's until
  ///     the descriptor names it.
  ///   - geometry: of that image.
  ///   - words: what has become of the disk, for its checkpoints.
  package func replaceTop(
    by name: String, geometry: Geometry, _ words: String
  ) throws(DeviceError) -> Made {
    let before = try ChainChange.settle(file)
    var changed = before.descriptor
    let top = changed.topGUID
    let old = changed.shot(top)?.file ?? ""
    try describing { () throws(DescriptorError) in try changed.replaceFile(of: top, by: name) }
    changed.resize(toSectors: geometry.sizeBytes / Geometry.sectorBytes)
    // The new image is not among them: before the change it is its maker's to keep.
    var intent = intent(
      .restore, top, before, files: [old] + CheckpointMove.leftovers(beside: [old, name]))
    intent.formerFile = old
    return try replace(by: changed, intent) { () throws(DeviceError) in
      try CheckpointMove.spoil(from: old, to: name, in: file.folder, words)
    }
  }
}

extension Device {
  /// Which clusters of a disk any of these deltas has by its own index: what is seen where nothing above
  /// them has it. QEMU's locks are held as long as the files are open.
  ///
  /// - Parameters:
  ///   - sources: opened for reading. They may be unclean, not corrupt.
  ///   - geometry: of the disk, or of a top above them.
  /// - Throws: `.format` for one that cannot be a part of that disk; `.locked`, `.io`.
  package static func mappedClusters(
    of sources: [DeltaSource], in geometry: Geometry
  ) throws(DeviceError) -> Bitmap {
    try ChainOpener.lockForReading(sources)
    let map = ClusterMap(geometry)
    for (level, source) in sources.enumerated() {
      let own = try Device.geometry(of: source.file, isRaw: source.isRaw, like: geometry)
      guard own.version == geometry.version, own.clusterShift == geometry.clusterShift,
        own.sizeBytes <= geometry.sizeBytes
      else {
        throw DeviceError(
          FormatError(
            .geometryMismatch,
            "version \(own.version.rawValue), clusters of \(own.clusterBytes) bytes and \(own.sizeBytes) bytes in all "
              + "are no part of version \(geometry.version.rawValue), \(geometry.clusterBytes) and \(geometry.sizeBytes)"
          ), level: level, path: source.file.path)
      }
      _ = try DeltaClusters.load(
        source.file, source.isRaw ? .raw(clusters: own.clusterCount) : .ploop(own), number: level,
        into: map)
    }
    var mapped = Bitmap(count: Int(geometry.clusterCount))
    var cluster: UInt64 = 0
    while cluster < geometry.clusterCount {
      let run = map.run(from: cluster, limit: geometry.clusterCount - cluster)
      if run.place != nil {
        for owned in cluster..<cluster + run.count { mapped[Int(owned)] = true }
      }
      cluster += run.count
    }
    return mapped
  }
}
