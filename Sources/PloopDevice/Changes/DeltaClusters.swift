internal import PloopFormat
internal import PloopIO

/// What the own indexes of deltas hold: the merged map has forgotten it where something newer shadows it.
enum DeltaClusters {
  /// Reads a delta's own index.
  ///
  /// - Parameter map: is given the entries under the delta's number.
  /// - Returns: the clusters of the file that header, index and entries use.
  static func load(_ delta: Delta, into map: ClusterMap) throws(DeviceError) -> Bitmap {
    try load(delta.file, delta.layout, number: delta.number, into: map)
  }

  static func load(
    _ file: ImageFile, _ layout: Delta.Layout, number: Int, into map: ClusterMap
  ) throws(DeviceError) -> Bitmap {
    switch layout {
    case .raw(let clusters):
      for cluster in 0..<min(clusters, map.geometry.clusterCount) {
        map[cluster] = Place(delta: number, physical: cluster)
      }
      return Bitmap(count: 0)
    case .ploop(let geometry):
      let bytes = try converting { () throws(IOError) in try file.size() }
      var scan = IndexScan(geometry, fileBytes: bytes)
      try scan.run(file) { (cluster, physical) throws(DeviceError) in
        guard cluster < map.geometry.clusterCount else { return }
        map[cluster] = Place(delta: number, physical: physical)
      } fault: { (fault) throws(DeviceError) in
        guard fault.kind != .beyondDisk else { return }
        throw ChainOpener.corrupt(fault, level: 0, path: file.path)
      }
      var used = scan.used
      // The free map covers the file: whatever else lies in it may hold anything.
      used.resize(to: max(used.count, Int(bytes >> UInt64(geometry.clusterShift))))
      return used
    }
  }

  // MARK: Counting

  /// An image that is no part of an attached chain.
  typealias Image = (file: ImageFile, isRaw: Bool)

  /// How many clusters of one delta another one lacks.
  ///
  /// - Parameter direction: whether the receiver is the newer of the two.
  static func lacking(
    in receiver: Delta, of source: Delta, _ direction: MergeDirection
  ) throws(DeviceError) -> UInt64 {
    try lacking((receiver.file, receiver.layout), (source.file, source.layout), direction)
  }

  /// - Parameter geometry: of their disk, for a raw base, which says nothing of it.
  static func lacking(
    in receiver: Image, of source: Image, _ direction: MergeDirection, like geometry: Geometry
  ) throws(DeviceError) -> UInt64 {
    func layout(_ image: Image) throws(DeviceError) -> Delta.Layout {
      let own = try Device.geometry(of: image.file, isRaw: image.isRaw, like: geometry)
      return image.isRaw ? .raw(clusters: own.clusterCount) : .ploop(own)
    }
    return try lacking(
      (receiver.file, try layout(receiver)), (source.file, try layout(source)), direction)
  }

  private static func lacking(
    _ receiver: (file: ImageFile, layout: Delta.Layout),
    _ source: (file: ImageFile, layout: Delta.Layout), _ direction: MergeDirection
  ) throws(DeviceError) -> UInt64 {
    let newer = direction == .forward ? receiver : source
    // Its own size: whoever says how large the disk is may say anything.
    guard case .ploop(let geometry) = newer.layout else {
      throw DeviceError(.rawNotBase, "\(newer.file.path) is raw and not the oldest")
    }
    let (wanted, having) = (ClusterMap(geometry), ClusterMap(geometry))
    _ = try load(source.file, source.layout, number: 0, into: wanted)
    _ = try load(receiver.file, receiver.layout, number: 0, into: having)
    var count: UInt64 = 0
    for cluster in 0..<geometry.clusterCount
    where wanted[cluster] != nil && having[cluster] == nil { count += 1 }
    return count
  }

  /// How many clusters a delta's own index maps.
  static func count(of delta: Delta, _ geometry: Geometry) throws(DeviceError) -> UInt64 {
    let map = ClusterMap(geometry)
    _ = try load(delta, into: map)
    return map.mappedCount
  }
}
