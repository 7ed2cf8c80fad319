// A disk whose older deltas are those of another disk.

extension Descriptor {
  /// The descriptor of a disk that lies over a snapshot of another one.
  ///
  /// - Parameters:
  ///   - guid: the snapshot; it, and what it builds on, has the same names in both trees.
  ///   - geometry: of the new disk.
  ///   - top: its own image.
  ///   - files: those of the snapshot's chain, oldest first, as the new descriptor is to name them.
  /// - Throws: `snapshot-not-found`; `descriptor-invalid` when the files are not those of the chain.
  package init(
    linkedTo guid: GUID, of base: Descriptor, _ geometry: Geometry, top: String, files: [String]
  ) throws(DescriptorError) {
    let chain = try base.chain(to: guid)
    guard chain.count == files.count else {
      throw DescriptorError(.invalid, "\(files.count) files for \(chain.count) snapshots")
    }
    var shots = zip(chain, files).map { shot, file in
      Shot(guid: shot.guid, parent: shot.parent, file: file, mark: shot.mark)
    }
    shots.append(Shot(guid: .top, parent: guid, file: top))
    try self.init(
      root: XMLElement("Parallels_disk_image"),
      sizeSectors: geometry.sizeBytes / Geometry.sectorBytes,
      clusterSectors: geometry.clusterSectors, shots: shots, topGUID: .top,
      isBaseRaw: base.isBaseRaw)
  }
}
