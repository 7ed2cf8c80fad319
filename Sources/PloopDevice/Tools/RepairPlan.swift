internal import PloopFormat
internal import PloopIO

/// What forced repair would do to the images of a chain, found out without doing any of it.
///
/// It is for entries that safe repair does not touch, since each of them is a guess. No byte of data is lost:
/// an entry that cannot be followed is taken out, and what no entry leads to is kept in a file of its own,
/// since it may be what that entry meant; a place that two clusters share is copied for the second of them; a
/// last cluster that is only half there is made whole.
package struct RepairPlan: Sendable {
  package enum Action: String, Sendable {
    /// The entry is zeroed: the cluster reads as in the delta below, or as zeroes.
    case drop
    /// The cluster gets a copy of the place that it shares with another one.
    case copy
    /// The file is made longer by zeroes, so that the cluster is wholly inside it.
    case extend
  }

  package struct Step: Equatable, Sendable {
    package let action: Action
    /// Logical.
    package let cluster: UInt64
    /// As it is.
    package let entry: UInt32
  }

  /// Of one image: what is to be done, and the bytes of header and index that this was made of.
  package struct Image: Sendable {
    package let steps: [Step]
    /// The file that the old header and index are kept in, beside the image: no other plan's.
    package func backupName(of image: String) -> String {
      "\(image)\(Repair.backupSuffix)-\(plan.prefix(12))"
    }

    /// The file that clusters are kept in which no entry can be followed to: each at its place in the image.
    /// Nil where no entry is taken out.
    package func lostName(of image: String) -> String? {
      steps.contains { $0.action == .drop } ? "\(image).lost-\(plan.prefix(12))" : nil
    }

    let digest: String
    /// The digest of the plan as a whole.
    fileprivate(set) var plan = ""
    let geometry: Geometry
    /// Whole clusters of the file, once it is extended.
    let fileClusters: UInt64
    /// Clusters of the file that header, index and entries use.
    let used: Bitmap
    var isNeeded: Bool { !steps.isEmpty }
  }

  /// With more wrong entries there is no index left that could be repaired.
  package static let stepLimit = 1 << 20

  /// Oldest first; nil for those that have no index.
  package let images: [Image?]
  /// Names the plan: the images have to be as they were when it is carried out.
  package let digest: String

  /// - Parameter sources: oldest first.
  /// - Throws: what makes the list itself no chain; `.format` where a header does not describe its file, or too many entries are wrong: no repair
  ///   is possible then; `.io`.
  package init(of sources: [DeltaSource]) throws(DeviceError) {
    try ChainOpener.forLooking(at: sources).checkSources()
    var images: [Image?] = []
    for source in sources {
      images.append(source.isRaw ? nil : try Image(of: source.file))
    }
    var hash = SHA256()
    for image in images {
      hash.update(Array((image.map { $0.isNeeded ? $0.digest : "" } ?? "").utf8 + [0]))
    }
    let digest = hash.hexDigest()
    for index in images.indices { images[index]?.plan = digest }
    self.images = images
    self.digest = digest
  }

  package var isNeeded: Bool { images.contains { $0?.isNeeded == true } }
}

extension RepairPlan.Image {
  init(of file: ImageFile) throws(DeviceError) {
    let bytes = try converting { () throws(IOError) in try file.size() }
    let header = try Device.header(of: file)
    do throws(FormatError) { geometry = try header.geometry(fileBytes: bytes) } catch {
      throw DeviceError(error, level: 0, path: file.path)
    }
    // With a last cluster made whole nothing points at half of one any more.
    let whole =
      (bytes >> UInt64(geometry.clusterShift)) + (bytes % geometry.clusterBytes == 0 ? 0 : 1)
    fileClusters = min(whole, geometry.physicalLimit + 1)
    let half = bytes % geometry.clusterBytes == 0 ? nil : fileClusters - 1
    var steps: [RepairPlan.Step] = []
    func add(_ action: RepairPlan.Action, _ cluster: UInt64, _ entry: UInt32) throws(DeviceError) {
      guard steps.count < RepairPlan.stepLimit else {
        throw DeviceError(
          FormatError(.corrupt, "more than \(RepairPlan.stepLimit) entries are wrong"), level: 0,
          path: file.path)
      }
      steps.append(RepairPlan.Step(action: action, cluster: cluster, entry: entry))
    }
    var scan = IndexScan(geometry, fileBytes: whole << UInt64(geometry.clusterShift))
    let geometry = geometry
    try scan.run(file) { (cluster, physical) throws(DeviceError) in
      guard physical == half else { return }
      try add(.extend, cluster, geometry.entry(of: physical))
    } fault: { (fault) throws(DeviceError) in
      switch fault.kind {
      case .beyondDisk: break
      case .duplicate: try add(.copy, fault.cluster, fault.entry)
      case .outsideFile, .insideHeader, .unaligned, .reserved:
        try add(.drop, fault.cluster, fault.entry)
      }
    }
    self.steps = steps
    used = scan.used
    digest = try RepairPlan.Image.digest(of: file, bytes: bytes, geometry)
  }

  /// Of the file's length, and of header and index: pages of zeroes are left out.
  private static func digest(
    of file: ImageFile, bytes: UInt64, _ geometry: Geometry
  ) throws(DeviceError) -> String {
    var hash = SHA256()
    let number = AlignedBuffer(count: 16).region
    number.setLittleEndian(bytes, at: 8)
    let buffer = AlignedBuffer(count: Int(min(1 << 20, geometry.headerBytes)))
    var start: UInt64 = 0
    while start < geometry.headerBytes {
      let chunk = buffer.region.slice(
        0, Int(min(UInt64(buffer.count), geometry.headerBytes - start)))
      try converting { () throws(IOError) in try file.readOrZero(into: chunk, at: start) }
      for offset in stride(from: 0, to: chunk.count, by: Geometry.pageBytes) {
        let page = chunk.slice(offset, Geometry.pageBytes)
        guard !page.isZero else { continue }
        number.setLittleEndian(start + UInt64(offset), at: 0)
        hash.update(number)
        hash.update(page)
      }
      start += UInt64(chunk.count)
    }
    return hash.hexDigest()
  }
}
