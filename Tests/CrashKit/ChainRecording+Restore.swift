internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

extension ChainRecording {
  /// A restore into the disk: the image that becomes its top, and what that has to hold.
  struct Restore {
    let image: String
    let source: SectorSource
    /// Positions of the trace.
    let begunAt: Int
    var endedAt = Int.max

    func isGoingOn(at position: Int) -> Bool { begunAt <= position && position < endedAt }

    /// What may lie there meanwhile.
    var files: [String] {
      let journal = FileTarget.journal(of: image)
      return [image, journal, "\(journal).tmp"]
    }
  }

  /// Restores a point into the disk, as a job of the service does, with the disk closed meanwhile.
  ///
  /// - Parameters:
  ///   - clusters: that the point has; all others are zero.
  ///   - count: of all its clusters; nil for as many as the disk has.
  ///   - steps: after so many whoever copies goes away, and another one goes on; again and again.
  package func restore(
    _ clusters: [Int], of count: UInt64? = nil, stops steps: Int = .max
  ) throws {
    try detach()
    let count = count ?? geometry.clusterCount
    let begunAt = position
    let step = history.begin(.change(durable: true), at: begunAt)
    for index in kept.indices { kept[index].spoiltFrom = min(kept[index].spoiltFrom, begunAt) }
    for sector in current.indices {
      let value = clusters.contains(sector / Self.perCluster) ? newValue(of: sector) : 0
      history.record(step: step, sector: sector, value: value)
      current[sector] = value
    }
    let size = sizes.begin(.change(durable: true), at: begunAt)
    sizes.record(step: size, sector: 0, value: count)
    geometry = Self.geometry(clusters: count)
    let image = try file.read().newFileName()
    let source = SectorSource(geometry: geometry, values: current)
    restores.append(Restore(image: image, source: source, begunAt: begunAt))
    let made = try goOn(restores[restores.count - 1], in: folder, steps: steps)
    history.end(step: step, at: position)
    sizes.end(step: size, at: position)
    restores[restores.count - 1].endedAt = position
    if let made { try change.end(made) }
    try attach()
  }

  /// - Returns: nil when it had come to its end already.
  private func goOn(
    _ restore: Restore, in folder: ImageFolder, steps: Int = .max
  ) throws -> ChainChange.Made? {
    let file = DescriptorFile(in: folder)
    let descriptor = try ChainChange.settle(file).descriptor
    guard !descriptor.shots.contains(where: { $0.file == restore.image }) else { return nil }
    let lower = try descriptor.chain(to: descriptor.topGUID).dropLast().map { shot in
      DeltaSource(
        file: try folder.open(shot.file, writable: false), folder: folder, name: shot.file)
    }
    let below = try Device.mappedClusters(of: Array(lower), in: restore.source.geometry)
    let isBegun = folder.contains(FileTarget.journal(of: restore.image))
    if isBegun || !folder.contains(restore.image) {
      while try !copy(restore, over: below, in: folder, steps: steps) {}
    }
    return try ChainChange(of: file, device: "disk", helpers: helpers).replaceTop(
      by: restore.image, geometry: restore.source.geometry, "restored")
  }

  /// - Returns: whether it is whole.
  private func copy(
    _ restore: Restore, over below: Bitmap, in folder: ImageFolder, steps: Int
  ) throws -> Bool {
    let sink = try FileTarget.image(
      restore.image, in: folder, of: restore.source.geometry, over: below)
    let copy = BackupCopy(from: restore.source, to: sink, on: engine)
    defer { copy.abandon() }
    for _ in 0..<steps {
      let goesOn = try copy.step(limitBytes: 3 * restore.source.geometry.clusterBytes)
      try copy.commit()
      guard goesOn else {
        try copy.finish()
        return true
      }
    }
    return false
  }

  /// A restore that the crash has cut short is gone on with, and the disk is what was restored.
  func finishRestore(at position: Int, in scratch: ImageFolder) throws -> String? {
    guard let restore = restores.first(where: { $0.isGoingOn(at: position) }) else { return nil }
    if let made = try goOn(restore, in: scratch) {
      try ChainChange(of: DescriptorFile(in: scratch), device: "disk", helpers: helpers).end(made)
    }
    let device = try open(scratch)
    defer { try? device.detach(until: .after(seconds: 10)) }
    guard
      try Recording.values(of: device)
        == restore.source.values.prefix(Int(device.geometry.clusterCount) * Self.perCluster).map({
          $0
        })
    else { return "restored in the end, the disk is another" }
    try device.detach(until: .after(seconds: 10))
    let left = try scratch.names().filter { restore.files.dropFirst().contains($0) }
    return left.isEmpty ? nil : "left behind by the restore: \(left)"
  }
}

/// A disk of which each sector is a value.
struct SectorSource: BackupSource {
  let geometry: Geometry
  let values: [UInt64]
  var wanted: Bitmap? { nil }

  private func sectors(of cluster: UInt64) -> ArraySlice<UInt64> {
    let count = Int(geometry.clusterSectors)
    return values[Int(cluster) * count..<(Int(cluster) + 1) * count]
  }

  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    (1, sectors(of: cluster).allSatisfy { $0 == 0 })
  }

  func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    let first = Int(cluster * geometry.clusterSectors)
    for index in 0..<region.count / History.sectorBytes {
      History.fill(
        region.slice(index * History.sectorBytes, History.sectorBytes), with: values[first + index])
    }
  }
}
