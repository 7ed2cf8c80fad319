package import PloopBackup
internal import PloopDevice
package import PloopFormat
package import PloopIO

/// Points of backups, made of closed images without a service.
package enum StoredBackup {
  /// Stores all of an image as a point of a chain.
  ///
  /// - Parameters:
  ///   - image: the path of a closed image that nobody has open.
  ///   - target: the folder of the target, which is there.
  ///   - chain: the name of the full backup that it builds on, itself for one.
  ///   - parent: the newest point of the chain; nil for a full one.
  ///   - changed: bytes of the disk that may be other than in the parent; nil for all.
  ///   - stopping: leaves the point after so many bytes, begun and committed.
  package static func store(
    image: String, in target: String, device: String, chain: String, id: String,
    parent: String? = nil, changed: [Range<UInt64>]? = nil, stopping: UInt64? = nil
  ) throws {
    try withDisk(image) { disk, engine in
      let chain = try DirectoryTarget(in: ImageFolder(path: target)).makeChain(chain, of: device)
      let wanted = changed.map { changed in
        var wanted = Bitmap(count: Int(disk.geometry.clusterCount))
        let shift = UInt64(disk.geometry.clusterShift)
        for range in changed {
          for cluster in range.lowerBound >> shift...(range.upperBound - 1) >> shift {
            wanted[Int(cluster)] = true
          }
        }
        return wanted
      }
      let manifest = PointManifest(
        id, device: device, mode: parent == nil ? .full : .incremental, parent: parent,
        geometry: disk.geometry, wanted: wanted, pointInTime: 1_764_000_000)
      let copy = BackupCopy(
        from: DeviceSource(disk, wanted: wanted),
        to: try chain.write(manifest, wanted: wanted), on: engine)
      if let stopping {
        _ = try copy.step(limitBytes: stopping)
        try copy.commit()
        copy.abandon()
        return
      }
      while try copy.step(limitBytes: 8 << 20) {}
      try copy.finish()
    }
  }

  /// One raw file that is to be written, or gone on with; what is known of it lies in a folder beside it.
  package static func raw(
    _ name: String, in folder: ImageFolder, of geometry: Geometry, id: String = "b"
  ) throws -> any BackupSink {
    let target = FilePointTarget(
      name, in: folder, as: .raw, records: try folder.makeFolder(beneath: ".records-\(name)"))
    return try target.write(
      PointManifest(
        id, device: "disk", mode: .full, geometry: geometry, pointInTime: 1, guid: GUID(named: id)))
  }

  /// Stores all of an image in an export, by itself.
  package static func store(
    image: String, in target: NBDTarget, device: String, id: String
  ) throws {
    try withDisk(image) { disk, engine in
      let manifest = PointManifest(
        id, device: device, mode: .full, geometry: disk.geometry, pointInTime: 1_764_000_000)
      let copy = BackupCopy(
        from: DeviceSource(disk), to: try target.write(manifest), on: engine)
      while try copy.step(limitBytes: 8 << 20) {}
      try copy.finish()
    }
  }

  private static func withDisk(
    _ image: String, _ body: (Device, IOEngine) throws -> Void
  ) throws {
    let engine = IOEngine(threadLimit: 2, rings: false)
    defer { engine.stop(until: .after(seconds: 20)) }
    let folder = try ImageFolder(
      path: String(image[..<(image.lastIndex(of: "/") ?? image.endIndex)]))
    let name = image.split(separator: "/").last.map(String.init) ?? image
    var options = AttachOptions.ofTests
    options.readonly = true
    let disk = try Device.attach(
      [DeltaSource(file: try folder.open(name, writable: false), folder: folder, name: name)],
      options)
    defer { try? disk.close() }
    try body(disk, engine)
  }
}
