internal import PloopFormat
package import PloopIO

extension Device {
  /// Puts another delta directly below the top, as the newest one that is only read: what the top
  /// lacks is read from there, before the deltas further down are asked. The kernel's driver calls
  /// this `add_delta`, and assembles chains by it, oldest first.
  ///
  /// The disk's content changes, so nobody may have seen it: it is suspended, or nothing has been
  /// asked of it since the attach. No byte of any file is written.
  ///
  /// - Parameters:
  ///   - source: opened for reading; the caller's again if this throws.
  ///   - deadline: by when requests in flight have to end.
  ///   - moment: writes down, durably, that the chain has these levels from now on. No request is
  ///     inside meanwhile; if it throws, the chain is as it was.
  /// - Throws: as an attach of such a chain would, and `.refused(.running)`; with nothing changed.
  package func addDelta(
    _ source: DeltaSource, until deadline: Deadline,
    at moment: ([LevelStatus]) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    try requireChecked(until: deadline)
    let level = chain.topLevel
    var sources = chain.deltas.map(\.source)
    sources.insert(source, at: level)
    let opener = ChainOpener(sources: sources, options: AttachOptions())
    try opener.checkSources()
    do throws(LockError) { try ImageLock.acquire(source.file, for: .read) } catch {
      throw DeviceError(error)
    }
    var isAdded = false
    defer { if !isAdded { ImageLock.release(source.file) } }
    // As at an attach: what a power failure could still take back is not built on.
    if !isReadOnly { try converting { () throws(IOError) in try source.file.sync() } }

    var levels = try opener.readHeaders().levels
    try opener.requireClosed([(level, levels[level])])
    let number = chain.freeNumber
    let added = ClusterMap(geometry)
    var had: MappedClusters? = source.isRaw ? nil : MappedClusters()
    try opener.readIndex(&levels[level], at: level) { run in
      had?.insert(run)
      for step in 0..<run.count {
        added[run.cluster + step] = Place(delta: number, physical: run.physical + step)
      }
    }
    let delta = Delta(
      number: number, source: source, layout: levels[level].layout,
      mappedClusters: levels[level].mapped, had: FormerClusters(had))

    _ = try changeUnrecorded(until: deadline) { (chain) throws(DeviceError) in
      guard isSuspended || !gate.hasAdmitted else {
        throw DeviceError(
          .refused(.running), "the disk has served requests, which have seen it without the delta")
      }
      var deltas = chain.deltas
      deltas.insert(delta, at: level)
      let grown = DeltaChain(deltas, geometry: chain.geometry, writing: chain.writing)
      try spoilCheckpoints("a delta was put below the top")
      try moment(self.levels(of: grown))
      return grown
    } repointing: {
      let top = chain.top.number
      map.repoint(with: nil) { cluster, place in
        guard place?.delta != top, let found = added.place(of: cluster) else { return nil }
        return PagedMap.Replacement(place: found)
      }
      map.forgetCounts(of: added)
    }
    isAdded = true
    map.count()
  }
}
