package import PloopFormat
package import PloopIO

// What a merge would take; nothing is opened for writing to find it out.

extension DeltaMerge {
  /// What a merge has to do.
  package struct Size: Equatable, Sendable {
    /// Clusters to be moved.
    package var clusters: UInt64
    /// Those of them for which the receiver has no place yet.
    package var newClusters: UInt64

    package init(clusters: UInt64, newClusters: UInt64) {
      self.clusters = clusters
      self.newClusters = newClusters
    }
  }

  package static func size(
    in device: Device, level: Int, _ direction: MergeDirection = .forward
  ) throws(DeviceError) -> Size {
    let chain = device.chain
    let (older, newer) = try pair(in: chain, level)
    guard direction == .forward else {
      return Size(
        clusters: try DeltaClusters.count(of: newer, device.geometry),
        newClusters: try DeltaClusters.lacking(in: older, of: newer, .backward))
    }
    let count =
      if let writing = chain.writing, writing.number == newer.number {
        try MergeReceiver(top: writing, of: device).count(from: older)
      } else {
        try DeltaClusters.lacking(in: newer, of: older, .forward)
      }
    return Size(clusters: count, newClusters: count)
  }

  /// The same, forward, of two images that are no part of an attached chain.
  ///
  /// - Parameter geometry: of their disk, for a raw base, which says nothing of it.
  package static func count(
    from source: (file: ImageFile, isRaw: Bool), into receiver: (file: ImageFile, isRaw: Bool),
    like geometry: Geometry
  ) throws(DeviceError) -> UInt64 {
    try DeltaClusters.lacking(in: receiver, of: source, .forward, like: geometry)
  }

  /// How many clusters an image's own index maps.
  package static func clusters(
    of image: (file: ImageFile, isRaw: Bool), like geometry: Geometry
  ) throws(DeviceError) -> UInt64 {
    let own = try Device.geometry(of: image.file, isRaw: image.isRaw, like: geometry)
    guard !image.isRaw else { return own.clusterCount }
    let bytes = try converting { () throws(IOError) in try image.file.size() }
    var scan = IndexScan(own, fileBytes: bytes)
    try scan.run(image.file) { _, _ throws(DeviceError) in
    } fault: { _ throws(DeviceError) in
    }
    return scan.mapped
  }
}
