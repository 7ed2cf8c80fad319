internal import PloopFormat
package import PloopIO

/// A delta that another program has copied into a neighbour's file, as `notify_merged_forward` and
/// `notify_merged_backward` tell the kernel's driver of it.
///
/// Nothing that the program did is believed: the receiver is read anew and checked as at an attach, and
/// it has to have exactly what it had and what the merged delta has. Then the map says what a map made
/// from the files would say, whichever levels are shadowed.
struct ForeignMerge {
  let source: Delta
  /// As it is now: its index may have grown.
  let receiver: Delta
  /// The receiver's own index.
  private let entries: ClusterMap

  init(of device: Device, level: Int, _ direction: MergeDirection) throws(DeviceError) {
    source = try device.lower(level)
    let neighbour = try device.receiver(of: level, direction)
    let chain = device.chain
    let old = chain.deltas[neighbour]
    try device.requireSameFile(old)
    if !device.isReadOnly { try converting { () throws(IOError) in try old.file.sync() } }

    var sources = chain.deltas.map(\.source)
    sources.remove(at: level)
    let place = min(level, neighbour)
    let opener = ChainOpener(sources: sources, options: AttachOptions())
    try opener.checkSources()
    var levels = try opener.readHeaders().levels
    try opener.requireClosed([(neighbour, levels[place])])
    let entries = ClusterMap(device.geometry)
    var had: MappedClusters? = old.isRaw ? nil : MappedClusters()
    try opener.readIndex(&levels[place], at: neighbour) { run in
      had?.insert(run)
      for step in 0..<run.count {
        entries[run.cluster + step] = Place(delta: old.number, physical: run.physical + step)
      }
    }
    self.entries = entries
    receiver = Delta(
      number: old.number, source: old.source, layout: levels[place].layout,
      mappedClusters: levels[place].mapped, had: FormerClusters(had))
    try compare(with: device, level: level)
  }

  /// The receiver has what it was read for and what the merged delta has, and nothing else that shows.
  private func compare(with device: Device, level: Int) throws(DeviceError) {
    let path = receiver.file.path
    func mismatch(_ cluster: UInt64, _ words: String) -> DeviceError {
      DeviceError(.refused(.mismatch), "\(path) \(words): the cluster \(cluster)")
    }
    let chain = device.chain
    var source = try ChainOpener(
      sources: chain.deltas.map(\.source), options: AttachOptions()
    ).readHeaders().levels[level]
    let merged = ClusterMap(device.geometry)
    try ChainOpener(sources: [], options: AttachOptions()).readEntries(&source, at: level) {
      merged[$0] = Place(delta: self.source.number, physical: $1)
    }
    try merged.forEach { (cluster, _) throws(DeviceError) in
      guard entries[cluster] != nil else {
        throw mismatch(cluster, "lacks what \(self.source.file.path) has")
      }
    }
    let neighbour = chain.level(of: receiver.number) ?? 0
    let former = FormerOwners(chain)
    // Whatever is read from the two is in the receiver: also what somebody has taken out of the source, and what pages
    // in memory still say.
    for owner in [neighbour, level] {
      try former.forEach(at: owner, in: device.map) { (cluster) throws(DeviceError) in
        if entries.place(of: cluster) == nil { throw mismatch(cluster, "has lost what it had") }
      }
    }
    try device.map.forEach { (cluster, place) throws(DeviceError) in
      guard place.delta == self.source.number || place.delta == receiver.number else { return }
      if entries.place(of: cluster) == nil { throw mismatch(cluster, "has lost what is read") }
    }
    let lowest = min(level, neighbour)
    var places = device.map.walk()
    try entries.forEach { (cluster, _) throws(DeviceError) in
      // A raw file that has grown has every cluster up to its end.
      let owner = former.level(of: cluster, at: try places.place(of: cluster))
      guard merged[cluster] == nil, !(receiver.isRaw && owner == nil) else { return }
      guard let owner, owner >= lowest else {
        throw mismatch(cluster, "has what neither of the two had")
      }
    }
  }

  /// Sends readers to the receiver. No request is inside.
  func repoint(_ map: PagedMap) {
    map.repoint(with: nil) { cluster, place in
      let owner = place?.delta ?? source.number
      guard owner == source.number || owner == receiver.number else { return nil }
      let found = entries.place(of: cluster)
      // Nothing may name a delta that is gone.
      guard found != nil || place != nil else { return nil }
      return PagedMap.Replacement(place: found)
    }
    map.forgetCounts(of: entries)
  }

  func chain(_ chain: DeltaChain) -> DeltaChain {
    let deltas = chain.deltas.filter { $0.number != source.number }
      .map { $0.number == receiver.number ? receiver : $0 }
    return DeltaChain(deltas, geometry: chain.geometry, writing: chain.writing)
  }
}

/// Whose clusters were before another program wrote to lower deltas. The map tells of the top, which nobody else
/// writes; of the others it may say already what their files say now.
private struct FormerOwners {
  private let chain: DeltaChain
  private let had: [MappedClusters?]

  init(_ chain: DeltaChain) {
    self.chain = chain
    had = chain.deltas.map(\.had.clusters)
  }

  /// - Parameter place: what the map says.
  func level(of cluster: UInt64, at place: Place?) -> Int? {
    let named = place.flatMap { chain.level(of: $0.delta) }
    return chain.deltas.indices.last { level in
      let delta = chain.deltas[level]
      if level < chain.topLevel {
        if let had = had[level] { return had.contains(cluster) }
        if case .raw(let clusters) = delta.layout { return cluster < clusters }
      }
      return level == named
    }
  }

  /// Hands out the clusters that a lower delta had and no newer one.
  func forEach(
    at level: Int, in map: PagedMap, _ body: (_ cluster: UInt64) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    guard let had = had[level] else {
      return try map.forEach { (cluster, place) throws(DeviceError) in
        if self.level(of: cluster, at: place) == level { try body(cluster) }
      }
    }
    var places = map.walk()
    for page in had.pages {
      for cluster in chain.geometry.clusters(inPage: page) where had.contains(cluster) {
        if self.level(of: cluster, at: try places.place(of: cluster)) == level { try body(cluster) }
      }
    }
  }
}

extension Device {
  /// The level of the neighbour that another program can have merged a delta into.
  ///
  /// - Throws: `.refused` where there is no such delta or neighbour.
  package func receiver(of level: Int, _ direction: MergeDirection) throws(DeviceError) -> Int {
    _ = try lower(level)
    let neighbour = direction == .forward ? level + 1 : level - 1
    guard neighbour >= 0, neighbour < chain.topLevel else {
      throw DeviceError(
        .refused(.wrongDirection),
        direction == .forward
          ? "above level \(level) is the top, which only a merge of our own writes"
          : "nothing lies below level 0")
    }
    return neighbour
  }

  /// Drops a delta that another program has merged into a neighbour's file. The delta's own file stays as
  /// it is, and is whoever's merged it.
  ///
  /// - Parameters:
  ///   - level: of the delta that was merged.
  ///   - deadline: by when requests in flight have to end.
  ///   - moment: makes durable that the chain has these levels from now on. No request is inside
  ///     meanwhile; if it throws, the chain is as it was.
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: `.refused`, `.format` or `.timeout`, with nothing changed.
  package func takeMerged(
    level: Int, _ direction: MergeDirection, until deadline: Deadline,
    at moment: ([LevelStatus]) throws(DeviceError) -> Void
  ) throws(DeviceError) -> UInt64 {
    let merge = try ForeignMerge(of: self, level: level, direction)
    let pause = try changeUnrecorded(until: deadline) { (chain) throws(DeviceError) in
      let shorter = merge.chain(chain)
      try spoilCheckpoints("another program has merged two deltas")
      try moment(levels(of: shorter))
      return shorter
    } repointing: {
      merge.repoint(map)
    }
    forgetUnclosed(merge.source)
    map.count()
    // What clients have been lent of the dropped file is theirs until they have taken it.
    _ = gate.awaitHolders(until: deadline)
    ImageLock.release(merge.source.file)
    return pause
  }
}
