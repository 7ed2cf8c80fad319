internal import PloopFormat
package import PloopIO

/// Where another program has moved the content of a logical cluster, inside one delta's file.
package struct IndexMove: Equatable, Sendable {
  package var cluster: UInt64
  /// The cluster of the file that holds it now.
  package var physical: UInt64

  package init(cluster: UInt64, physical: UInt64) {
    self.cluster = cluster
    self.physical = physical
  }
}

extension Device {
  package static let indexMoveLimit = 65_536

  /// Has readers find clusters of a lower delta where another program has moved them: it has copied
  /// them, made the copies and then its index durable, and will use the old places for something else.
  /// The kernel's driver calls this `update_delta_index`.
  ///
  /// All or nothing. Once this returns nobody reads the old places any more. A cluster that a newer
  /// delta owns is left alone: whoever reads it does not come here.
  ///
  /// - Parameters:
  ///   - moves: what the file's own index says of these clusters.
  ///   - isWholeChecked: whether all of the index is held against the rules of the format, and not only
  ///     what is named here against the file.
  ///   - deadline: by when requests in flight have to end.
  /// - Returns: how many clusters are read from the new places; the others were not read from this delta.
  /// - Throws: `.refused` with the place in `moves`, `.format`, or `.timeout`; with nothing changed, but
  ///   for a client that holds pages of the old places, as the words say then.
  package func updateIndex(
    level: Int, _ moves: [IndexMove], isWholeChecked: Bool, until deadline: Deadline
  ) throws(DeviceError) -> Int {
    let delta = try lower(level)
    guard !delta.isRaw else {
      throw DeviceError(
        .refused(.rawNotAllowed), "\(delta.file.path) is raw: its clusters have their places")
    }
    try requireSameFile(delta)
    // What a power failure could still take back is not built on.
    if !isReadOnly { try converting { () throws(IOError) in try delta.file.sync() } }
    let opener = ChainOpener(sources: chain.deltas.map(\.source), options: AttachOptions())
    var found = try opener.readHeaders().levels[level]
    guard case .ploop(let geometry) = found.layout else {
      throw DeviceError(.rawNotBase, "\(delta.file.path) is raw")
    }
    try check(moves, geometry, fileBytes: found.fileBytes, path: delta.file.path)
    if isWholeChecked { try opener.readIndex(&found, at: level) { _ in } }
    let known = try map.foresee(moves.map(\.cluster))
    try requireMapped(moves, known)
    try compare(moves, with: delta.file, geometry)
    try requireFormer(moves, of: delta)

    var places: [UInt64: UInt64] = [:]
    let number = delta.number
    _ = try changeUnrecorded(until: deadline) { (chain) throws(DeviceError) in
      // Again, now that no guest can trim one.
      try requireMapped(moves, known)
      try spoilCheckpoints("another program has moved clusters of a delta")
      for move in moves where try known.place(of: move.cluster)?.delta == number {
        places[move.cluster] = move.physical
      }
      // Its index may have become longer.
      let deltas = chain.deltas.map { delta in
        delta.number != number
          ? delta
          : Delta(
            number: number, source: delta.source, layout: .ploop(geometry),
            mappedClusters: delta.mappedClusters, had: delta.had)
      }
      return DeltaChain(deltas, geometry: chain.geometry, writing: chain.writing)
    } repointing: {
      // What is not in memory is read as it is in the file by now.
      let pages = Set(places.keys.map { Geometry.position(of: $0).page })
      map.repoint(inPages: Array(pages), with: nil) { cluster, place in
        guard place?.delta == number, let physical = places[cluster] else { return nil }
        return PagedMap.Replacement(place: Place(delta: number, physical: physical))
      }
    }
    try awaitHolders("the moves are in effect", until: deadline)
    return places.count
  }

  /// What can be said of a list by itself: numbers that exist, and each of them once.
  private func check(
    _ moves: [IndexMove], _ geometry: Geometry, fileBytes: UInt64, path: String
  ) throws(DeviceError) {
    guard moves.count <= Device.indexMoveLimit else {
      throw DeviceError(
        .refused(.invalid), "\(moves.count) entries; \(Device.indexMoveLimit) are the most")
    }
    let scan = IndexScan(geometry, fileBytes: fileBytes)
    var clusters: Set<UInt64> = []
    var places: Set<UInt64> = []
    for (entry, move) in moves.enumerated() {
      guard move.cluster < geometry.clusterCount else {
        throw DeviceError(
          .refused(.outOfRange, entry: entry),
          "\(path) has \(geometry.clusterCount) clusters, and none \(move.cluster)")
      }
      guard (geometry.headerClusters..<scan.fileClusters).contains(move.physical) else {
        throw DeviceError(
          .refused(.outOfRange, entry: entry),
          "\(path) has no cluster of data \(move.physical)")
      }
      guard clusters.insert(move.cluster).inserted, places.insert(move.physical).inserted else {
        throw DeviceError(
          .refused(.invalid, entry: entry),
          "the cluster \(move.cluster) or its place \(move.physical) is there twice")
      }
    }
  }

  private func requireMapped(
    _ moves: [IndexMove], _ known: PagedMap.Foresight
  ) throws(DeviceError) {
    for (entry, move) in moves.enumerated() where try known.place(of: move.cluster) == nil {
      throw DeviceError(
        .refused(.notMapped, entry: entry), "no delta maps the cluster \(move.cluster)")
    }
  }

  /// What is moved was there before. Pages that are not in memory cannot tell: they say what the file says by now.
  private func requireFormer(_ moves: [IndexMove], of delta: Delta) throws(DeviceError) {
    guard let had = delta.had.clusters else { return }
    for (entry, move) in moves.enumerated() where !had.contains(move.cluster) {
      throw DeviceError(
        .refused(.mismatch, entry: entry),
        "\(delta.file.path) had no cluster \(move.cluster) that could have been moved")
    }
  }

  /// Holds a list against the index in the file.
  private func compare(
    _ moves: [IndexMove], with file: ImageFile, _ geometry: Geometry
  ) throws(DeviceError) {
    let buffer = AlignedBuffer(count: Geometry.pageBytes)
    var loaded = -1
    for (entry, move) in moves.enumerated().sorted(by: { $0.element.cluster < $1.element.cluster })
    {
      let (page, slot) = Geometry.position(of: move.cluster)
      if page != loaded {
        try converting { () throws(IOError) in
          try file.readOrZero(
            into: buffer.region, at: UInt64(page) * UInt64(Geometry.pageBytes))
        }
        loaded = page
      }
      let value = buffer.region.littleEndian(at: slot * 4, as: UInt32.self)
      guard value == geometry.entry(of: move.physical) else {
        throw DeviceError(
          .refused(.mismatch, entry: entry),
          "\(file.path) has \(value) as its entry of the cluster \(move.cluster)")
      }
    }
  }

  // MARK: Deltas that other programs write

  /// Waits until no client reads what a change has taken out of use: its file may be written then.
  ///
  /// - Throws: `.timeout`, with the change made.
  func awaitHolders(_ state: String, until deadline: Deadline) throws(DeviceError) {
    guard gate.awaitHolders(until: deadline) else {
      throw DeviceError(
        .timeout,
        "\(state), but a client has not taken what it has read of the old file; leave that alone until it has, or disconnect it"
      )
    }
  }

  /// A delta below the top.
  func lower(_ level: Int) throws(DeviceError) -> Delta {
    try requireChecked(until: .never)
    let chain = self.chain
    guard level >= 0, level <= chain.topLevel else {
      throw DeviceError(.refused(.noSuchDelta), "there is no delta at level \(level)")
    }
    guard level < chain.topLevel else {
      throw DeviceError(.refused(.isTop), "level \(level) is the top, which nobody else writes")
    }
    return chain.deltas[level]
  }

  /// - Throws: `.refused` for the top and for levels that there are not.
  package func requireLower(_ level: Int) throws(DeviceError) { _ = try lower(level) }

  /// A program that has put another file in the place of one that is open has not changed what is read.
  func requireSameFile(_ delta: Delta) throws(DeviceError) {
    let file = try converting { () throws(IOError) in
      try delta.source.folder.open(delta.source.name, writable: false)
    }
    guard file.identity == delta.file.identity else {
      throw DeviceError(
        .refused(.mismatch), "\(delta.file.path) is another file than the one that is attached")
    }
  }
}
