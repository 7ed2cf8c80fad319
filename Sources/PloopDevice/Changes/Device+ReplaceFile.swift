internal import PloopFormat
package import PloopIO

extension Device {
  private static let comparedBytes = 1 << 20

  /// Reads a lower delta from another file from now on, one that holds the same in the same places; as
  /// OpenVZ's `ploop replace` does.
  ///
  /// - Parameters:
  ///   - source: opened for reading; the caller's again if this throws.
  ///   - isContentChecked: whether all content is compared, and not only header and index.
  ///   - deadline: by when requests in flight have to end.
  ///   - moment: makes durable that the chain has these levels from now on; if it throws, the chain is
  ///     as it was.
  /// - Throws: `.refused(.notIdentical)` and as an attach would, with nothing changed.
  package func replaceFile(
    level: Int, with source: DeltaSource, isContentChecked: Bool, until deadline: Deadline,
    at moment: ([LevelStatus]) throws(DeviceError) -> Void
  ) throws(DeviceError) -> UInt64 {
    let old = try lower(level)
    var sources = chain.deltas.map(\.source)
    sources[level] = source
    let opener = ChainOpener(sources: sources, options: AttachOptions())
    try opener.checkSources()
    do throws(LockError) { try ImageLock.acquire(source.file, for: .read) } catch {
      throw DeviceError(error)
    }
    var isReplaced = false
    defer { if !isReplaced { ImageLock.release(source.file) } }
    if !isReadOnly { try converting { () throws(IOError) in try source.file.sync() } }
    var levels = try opener.readHeaders().levels
    try opener.requireClosed([(level, levels[level])])
    try compare(&levels[level], with: old, opener, level: level, isContentChecked)

    let pause = try changeUnrecorded(until: deadline) { (chain) throws(DeviceError) in
      var deltas = chain.deltas
      deltas[level] = Delta(
        number: old.number, source: source, layout: levels[level].layout,
        mappedClusters: levels[level].mapped, had: old.had)
      let replaced = DeltaChain(deltas, geometry: chain.geometry, writing: chain.writing)
      try spoilCheckpoints("the file of a delta was replaced by another program's")
      try moment(self.levels(of: replaced))
      return replaced
    }
    isReplaced = true
    // What clients have been lent of the old file is theirs until they have taken it.
    _ = gate.awaitHolders(until: deadline)
    ImageLock.release(old.file)
    return pause
  }

  /// Two images hold the same if their indexes name the same places, and the places the same bytes.
  private func compare(
    _ new: inout ChainOpener.Level, with old: Delta, _ opener: ChainOpener, level: Int,
    _ isContentChecked: Bool
  ) throws(DeviceError) {
    let path = new.source.file.path
    func different(_ words: String) -> DeviceError {
      DeviceError(.refused(.notIdentical), "\(path) has \(words) than \(old.file.path)")
    }
    guard new.source.isRaw == old.isRaw else { throw different("another format") }
    var present = try ChainOpener(
      sources: chain.deltas.map(\.source), options: AttachOptions()
    ).readHeaders().levels[level]
    let shift = UInt64(geometry.clusterShift)
    switch (new.layout, present.layout) {
    case (.ploop(let one), .ploop(let other)):
      guard one == other else { throw different("another geometry") }
    case (.raw(let one), .raw(let other)):
      guard one == other else { throw different("another length") }
    default: throw different("another format")
    }
    let (entries, others) = (ClusterMap(geometry), ClusterMap(geometry))
    try opener.readEntries(&new, at: level) { entries[$0] = Place(delta: 0, physical: $1) }
    try opener.readEntries(&present, at: level) { others[$0] = Place(delta: 0, physical: $1) }
    guard entries.mappedCount == others.mappedCount else { throw different("another index") }
    try others.forEach { (cluster, place) throws(DeviceError) in
      guard entries[cluster] == place else { throw different("another index") }
      guard isContentChecked else { return }
      guard
        try Device.holdSame(
          new.source.file, old.file, from: place.physical << shift, count: geometry.clusterBytes)
      else { throw different("other bytes in the cluster \(cluster)") }
    }
  }

  private static func holdSame(
    _ one: ImageFile, _ other: ImageFile, from start: UInt64, count: UInt64
  ) throws(DeviceError) -> Bool {
    let length = Int(min(count, UInt64(comparedBytes)))
    let (left, right) = (AlignedBuffer(count: length), AlignedBuffer(count: length))
    for offset in stride(from: start, to: start + count, by: length) {
      try converting { () throws(IOError) in
        try one.readOrZero(into: left.region, at: offset)
        try other.readOrZero(into: right.region, at: offset)
      }
      guard left.region.equals(right.region) else { return false }
    }
    return true
  }
}
