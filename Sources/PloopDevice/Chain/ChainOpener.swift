internal import PloopFormat
internal import PloopIO

/// Checks that files are a chain, before a byte of them is changed.
///
/// Every method either says what the chain is or throws; nothing here writes.
struct ChainOpener {
  static let levelLimit = 256

  /// One image as its header describes it.
  struct Level {
    let source: DeltaSource
    var fileBytes: UInt64
    /// Nil for a raw base.
    var header: Header?
    var layout: Delta.Layout
    var used = Bitmap(count: 0)
    var mapped: UInt64 = 0
    /// Which clusters the index of a lower delta has.
    var had: MappedClusters?
    var tailPages: [Int] = []

    var isUnclean: Bool { header.map { !$0.isClean } ?? false }
    /// Whether the header names an extension that nobody keeps up to date from now on.
    var hasExtension: Bool { header.map { $0.extensionSector != 0 } ?? false }
  }

  let sources: [DeltaSource]
  let options: AttachOptions

  /// What can be said without reading: numbers, order, one file only once.
  func checkSources() throws(DeviceError) {
    guard let top = sources.last, !top.isRaw else {
      throw DeviceError(.rawNotBase, "a raw image can only lie below a ploop delta")
    }
    guard sources.count <= ChainOpener.levelLimit else {
      throw DeviceError(
        .tooManyDeltas, "\(sources.count) deltas; 255 read-only ones under one top are the most")
    }
    if let raw = sources.dropFirst().first(where: \.isRaw) {
      throw DeviceError(.rawNotBase, "\(raw.file.path) is raw; only the oldest delta can be")
    }
    var seen: [FileIdentity: String] = [:]
    for source in sources {
      if let other = seen.updateValue(source.file.path, forKey: source.file.identity) {
        throw DeviceError(
          .sameFileTwice, "\(source.file.path) and \(other) are the same file")
      }
    }
  }

  /// Reads and checks all headers, from the top down, each against the one above it.
  func readHeaders() throws(DeviceError) -> (geometry: Geometry, levels: [Level]) {
    var levels: [Level] = []
    var above: Geometry?
    for (number, source) in sources.enumerated().reversed() {
      let bytes = try converting { () throws(IOError) in try source.file.size() }
      if source.isRaw, let above {
        levels.append(try raw(source, fileBytes: bytes, above: above))
        continue
      }
      let buffer = AlignedBuffer(count: Header.byteCount)
      let count = try converting { () throws(IOError) in
        try source.file.read(into: buffer.region, at: 0)
      }
      do throws(FormatError) {
        let header = try Header(parsing: buffer.region.slice(0, count).bytes)
        let geometry = try header.geometry(fileBytes: bytes)
        if let above { try compare(geometry, with: above) }
        above = geometry
        levels.append(
          Level(source: source, fileBytes: bytes, header: header, layout: .ploop(geometry)))
      } catch {
        throw DeviceError(error, level: number, path: source.file.path)
      }
    }
    levels.reverse()
    guard case .ploop(let top)? = levels.last?.layout else {
      throw DeviceError(.rawNotBase, "the top is raw")
    }
    return (top, levels)
  }

  /// A lower delta is of the same version and cluster size and never larger than the one above.
  private func compare(_ lower: Geometry, with above: Geometry) throws(FormatError) {
    guard lower.version == above.version else {
      throw FormatError(
        .geometryMismatch,
        "version \(lower.version.rawValue) below a delta of version \(above.version.rawValue)")
    }
    guard lower.clusterShift == above.clusterShift else {
      throw FormatError(
        .geometryMismatch,
        "clusters of \(lower.clusterBytes) bytes below a delta with \(above.clusterBytes)")
    }
    guard lower.sizeBytes <= above.sizeBytes, lower.entryCount <= above.entryCount else {
      throw FormatError(
        .geometryMismatch,
        "a disk of \(lower.sizeBytes) bytes below a delta with \(above.sizeBytes)")
    }
  }

  private func raw(
    _ source: DeltaSource, fileBytes: UInt64, above: Geometry
  ) throws(DeviceError) -> Level {
    guard fileBytes % above.clusterBytes == 0 else {
      throw DeviceError(
        FormatError(
          .rawSizeMisaligned,
          "\(fileBytes) bytes are not a whole number of clusters of \(above.clusterBytes) bytes"),
        level: 0, path: source.file.path)
    }
    let clusters = fileBytes / above.clusterBytes
    guard clusters <= above.clusterCount else {
      throw DeviceError(
        FormatError(
          .geometryMismatch,
          "\(fileBytes) bytes of raw data below a disk of \(above.sizeBytes)"),
        level: 0, path: source.file.path)
    }
    var level = Level(
      source: source, fileBytes: fileBytes, header: nil, layout: .raw(clusters: clusters))
    level.mapped = clusters
    return level
  }

  /// Scans every index, newest first, and counts in each page of the map the clusters that any delta has.
  ///
  /// - Parameters:
  ///   - map: nil where they are counted otherwise.
  ///   - isGivenUp: asked now and then; it fails when that says so.
  func checkIndexes(
    _ levels: inout [Level], counting map: PagedMap?, until isGivenUp: () -> Bool = { false }
  ) throws(DeviceError) {
    let isChain = levels.count > 1
    // Which clusters a newer delta has, where there is another one to come.
    var seen = Bitmap(count: isChain ? Int(map?.geometry.clusterCount ?? 0) : 0)
    for number in levels.indices.reversed() {
      var had: MappedClusters? = isChain && number < levels.count - 1 ? MappedClusters() : nil
      if case .raw = levels[number].layout { had = nil }
      defer { levels[number].had = had }
      guard let map else {
        try readIndex(&levels[number], at: number) { (run) throws(DeviceError) in
          guard !isGivenUp() else { throw DeviceError(.detached, "nobody waits for the check") }
          had?.insert(run)
        }
        continue
      }
      var counter = PagedMap.Counter(map)
      defer { counter.end() }
      try readIndex(&levels[number], at: number) { run in
        let clusters = run.cluster..<run.cluster + run.count
        guard isChain else { return counter.add(clusters) }
        had?.insert(run)
        let bits = Int(clusters.lowerBound)..<Int(clusters.upperBound)
        guard !seen.isClear(bits) else {
          seen.set(bits)
          return counter.add(clusters)
        }
        for cluster in clusters where !seen[Int(cluster)] {
          seen[Int(cluster)] = true
          counter.add(cluster..<cluster + 1)
        }
      }
    }
  }

  /// Scans every index, newest first, and fills the map with the newest owner of each cluster. The
  /// deltas get their levels as numbers.
  func readIndexes(_ levels: inout [Level], into map: ClusterMap) throws(DeviceError) {
    for number in levels.indices.reversed() {
      try readEntries(&levels[number], at: number) { cluster, physical in
        if map[cluster] == nil { map[cluster] = Place(delta: number, physical: physical) }
      }
    }
  }

  /// Like ``readIndex(_:at:run:)``, one cluster at a time.
  func readEntries(
    _ level: inout Level, at number: Int, entry: (_ cluster: UInt64, _ physical: UInt64) -> Void
  ) throws(DeviceError) {
    try readIndex(&level, at: number) { run in
      for step in 0..<run.count { entry(run.cluster + step, run.physical + step) }
    }
  }

  /// Scans the index of one level and hands out what it maps, in ascending order of clusters.
  ///
  /// - Parameter number: of the level, for errors.
  func readIndex(
    _ level: inout Level, at number: Int, run: (IndexRun) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    switch level.layout {
    case .raw(let clusters):
      if clusters > 0 { try run(IndexRun(cluster: 0, physical: 0, count: clusters)) }
    case .ploop(let geometry):
      let path = level.source.file.path
      var scan = IndexScan(geometry, fileBytes: level.fileBytes)
      try scan.runs(of: level.source.file) { (found) throws(DeviceError) in
        try run(found)
      } fault: { (fault) throws(DeviceError) in
        guard fault.kind != .beyondDisk else { return }
        throw ChainOpener.corrupt(fault, level: number, path: path)
      }
      level.used = scan.used
      level.mapped = scan.mapped
      level.tailPages = scan.tailPages
      guard scan.tailPages.isEmpty || options.repairSafely else {
        throw DeviceError(
          FormatError(
            .indexTailSet, "index slots behind the disk's last cluster are set"),
          level: number, path: path)
      }
    }
  }

  /// - Throws: `.unclean` for the first level that somebody has not closed.
  func requireClosed(_ levels: some Sequence<(offset: Int, element: Level)>) throws(DeviceError) {
    for (number, level) in levels where level.isUnclean {
      throw DeviceError(
        FormatError(
          .unclean, "the image is marked as in use: whoever wrote it last did not close it"),
        level: number, path: level.source.file.path)
    }
  }

  static func corrupt(_ fault: IndexFault, level: Int, path: String) -> DeviceError {
    DeviceError(
      FormatError(
        .corrupt,
        "\(fault.kind.rawValue): entry \(fault.entry) of logical cluster \(fault.cluster)",
        fault: fault),
      level: level, path: path)
  }
}
