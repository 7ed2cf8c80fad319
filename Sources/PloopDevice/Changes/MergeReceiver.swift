internal import PloopFormat
internal import PloopIO

/// The delta that a merge copies into: the top, which guests write meanwhile, or a lower one, which
/// nobody writes.
///
/// What the top lacks the map tells. The map has forgotten what a lower delta lacks where something
/// newer shadows both, so for these the two indexes themselves are read; and what is copied into a
/// lower delta is shown to readers only once it is durable, since a disk whose own top can be trusted
/// must not depend on a sync of another file.
final class MergeReceiver: Sendable {
  let writing: Writing
  let device: Device
  /// The entries of the two indexes under these numbers; nil for the top.
  let own: Own?
  /// Pages with clusters that need no place.
  private let dropped = Locked<Set<Int>>([])

  struct Own: Sendable {
    /// The delta as the chain has it.
    let original: Delta
    /// The file as it is written.
    let source: DeltaSource
    /// Where the delta's clusters are now.
    let index: ClusterMap
    /// Those of the delta that is merged into it.
    let merged: ClusterMap
    /// Whether what is merged is newer, and so goes over what is here.
    let isOlder: Bool
    /// As the file's header has it.
    let layout: Locked<Geometry>
    /// The receiver's as ``Writing`` knows it.
    let condition: Condition
  }

  init(top writing: Writing, of device: Device) {
    self.writing = writing
    self.device = device
    own = nil
  }

  /// Opens a lower delta for writing, and marks it as in use, durably.
  ///
  /// - Parameter other: what is merged into it: the one below, or the one above, which may be of a
  ///   larger disk (``grow(until:)``).
  init(lower delta: Delta, merging other: Delta, of device: Device) throws(DeviceError) {
    self.device = device
    guard !delta.isRaw else {
      throw DeviceError(.rawNotBase, "\(delta.file.path) is raw: it has no index to write")
    }
    try MergeReceiver.requireTrusted([delta, other], of: device)
    // As it is now: another program may have given it a longer index.
    let geometry = try Device.geometry(of: delta.file, isRaw: false, like: device.geometry)
    var wanted = geometry
    if case .ploop(let above) = other.layout,
      above.entryCount > geometry.entryCount || above.sizeBytes > geometry.sizeBytes
    {
      wanted = above
    }
    let index = ClusterMap(wanted)
    let merged = ClusterMap(wanted)
    _ = try DeltaClusters.load(other, into: merged)
    try MergeReceiver.requireWhole(other) { merged.place(of: $0) != nil }
    try HashFile.remove(beside: delta.source)
    // Our own lock for reading is in the way of the one for writing, and is taken again at the end.
    ImageLock.release(delta.file)
    do throws(DeviceError) {
      let file = try MergeReceiver.reopen(delta)
      let written = Delta(
        number: delta.number,
        source: DeltaSource(file: file, folder: delta.source.folder, name: delta.source.name),
        layout: .ploop(geometry), mappedClusters: delta.mappedClusters)
      try converting { () throws(IOError) in try file.sync() }
      var used = try DeltaClusters.load(written, into: index)
      try MergeReceiver.requireWhole(delta) { index.place(of: $0) != nil }
      try MergeReceiver.requireRead(delta, in: device.map, index)
      // Where a larger index will be nothing is put any more.
      used.resize(to: max(used.count, Int(wanted.headerClusters)))
      for cluster in geometry.headerClusters..<max(geometry.headerClusters, wanted.headerClusters) {
        used[Int(cluster)] = true
      }
      let canPunch = Device.canPunch(
        file, at: try converting { () throws(IOError) in try file.size() })
      var header = try Device.header(of: file)
      header.markOpen()
      header.extensionSector = 0
      try Device.write(header, to: file)
      try converting { () throws(IOError) in
        // An interrupted extension; the clusters that are added count as zero.
        let bytes = try file.size()
        let whole = bytes & ~(geometry.clusterBytes - 1)
        if bytes != whole { try file.truncate(to: whole) }
      }
      // From here on its end is where this merge puts it, and not where a snapshot left it.
      device.forgetUnclosed(delta)
      let condition = Condition()
      own = Own(
        original: delta, source: written.source, index: index, merged: merged,
        isOlder: device.chain.isOlder(delta, than: other), layout: Locked(geometry),
        condition: condition)
      writing = Writing(
        written, geometry: wanted, used: used, map: index, gate: device.gate,
        condition: condition, canPunch: canPunch)
    } catch {
      try? ImageLock.acquire(delta.file, for: .read)
      throw error
    }
  }

  /// What the page cache has of a file whose sync has failed may be what no disk has: a merge that
  /// believed it would have the only copy of a cluster removed.
  private static func requireTrusted(
    _ deltas: [Delta], of device: Device
  ) throws(DeviceError) {
    for delta in deltas {
      guard let reason = device.unsynced.withLock({ $0[delta.file.identity] }) else { continue }
      throw DeviceError(.degraded, "\(reason); it is not merged before the disk is attached again")
    }
  }

  /// What another program has taken out of the receiver's index would be cut off with the end of the file, or written
  /// over; what it has taken out of the source's would be gone with the file.
  ///
  /// - Parameter has: whether the delta's index, as it has just been read, names a cluster.
  private static func requireWhole(
    _ delta: Delta, _ has: (_ cluster: UInt64) -> Bool
  ) throws(DeviceError) {
    guard let had = delta.had.clusters, case .ploop(let geometry) = delta.layout else { return }
    for page in had.pages {
      for cluster in geometry.clusters(inPage: page) where had.contains(cluster) {
        guard !has(cluster) else { continue }
        throw DeviceError(
          .refused(.mismatch),
          "\(delta.file.path) has lost what it had: the cluster \(cluster)")
      }
    }
  }

  /// The same of the source of a merge into the top, whose index nobody else reads as a whole.
  static func requireWhole(_ delta: Delta) throws(DeviceError) {
    guard delta.had.clusters != nil, case .ploop(let geometry) = delta.layout else { return }
    let found = try FormerClusters.clusters(of: delta.file, geometry)
    try requireWhole(delta) { found.contains($0) }
  }

  private static func reopen(_ delta: Delta) throws(DeviceError) -> ImageFile {
    let file = try converting { () throws(IOError) in
      try delta.source.folder.open(delta.source.name, writable: true)
    }
    guard file.identity == delta.file.identity else {
      throw DeviceError(.locked, "\(delta.file.path) is another file than at the attach")
    }
    do throws(LockError) { try ImageLock.acquire(file, for: .write) } catch {
      throw DeviceError(error)
    }
    return file
  }

  // MARK: What to copy

  /// Where the source has a cluster that the receiver is to have; nil for others.
  func wanted(_ cluster: UInt64, of source: Delta) throws(DeviceError) -> UInt64? {
    guard let own else {
      guard let place = try device.map.place(of: cluster), place.delta == source.number else {
        return nil
      }
      return place.physical
    }
    return own.isOlder || own.index[cluster] == nil ? own.merged[cluster]?.physical : nil
  }

  private var clusterCount: UInt64 {
    own?.index.geometry.clusterCount ?? device.geometry.clusterCount
  }

  func count(from source: Delta) throws(DeviceError) -> UInt64 {
    guard own != nil else {
      var count: UInt64 = 0
      try device.map.forEach { _, place in if place.delta == source.number { count += 1 } }
      return count
    }
    var count: UInt64 = 0
    try forEach(from: 0, of: source) { _ in
      count += 1
      return true
    }
    return count
  }

  /// Up to `limit` of them, from `cluster` on, which is left behind the last one looked at.
  func next(
    _ limit: Int, from cluster: inout UInt64, of source: Delta
  ) throws(DeviceError) -> [UInt64] {
    var found: [UInt64] = []
    cluster = try forEach(from: cluster, of: source) { wanted in
      guard found.count < limit else { return false }
      found.append(wanted)
      return true
    }
    return found
  }

  /// Hands out clusters in ascending order until `body` has had enough.
  ///
  /// - Returns: the first cluster that was not taken.
  @discardableResult
  private func forEach(
    from start: UInt64, of source: Delta, _ body: (UInt64) -> Bool
  ) throws(DeviceError) -> UInt64 {
    var cluster = start
    var places = device.map.walk()
    while cluster < clusterCount {
      let limit = clusterCount - cluster
      guard let own else {
        let run = try places.run(from: cluster, limit: limit)
        if run.place?.delta == source.number {
          for member in cluster..<(cluster + run.count) where !body(member) { return member }
        }
        cluster += run.count
        continue
      }
      let run = own.merged.run(from: cluster, limit: limit)
      if run.place != nil {
        for member in cluster..<(cluster + run.count)
        where try wanted(member, of: source) != nil && !body(member) { return member }
      }
      cluster += run.count
    }
    return clusterCount
  }

  // MARK: Moving

  /// An all-zero cluster with nothing beneath it needs no place. As long as the source is there its index may bring
  /// the entry back, which reads the same (``repoint(from:isWhole:)``).
  func drop(_ cluster: UInt64) throws(DeviceError) {
    let page = Geometry.position(of: cluster).page
    dropped.withLock { _ = $0.insert(page) }
    guard own == nil else { return }
    try device.map.pinning(page) {
      device.map.set(nil, for: cluster)
    }
  }

  /// Counts what the map has in pages of which something was dropped, once the source is gone.
  func countDropped() { device.map.count(anew: dropped.withLock { $0 }) }

  /// Gives a cluster a place in the receiver, which `fill` writes before anybody can find it. An older
  /// receiver may have it already: nobody finds it there as long as the newer delta is above.
  func place(
    _ cluster: UInt64, _ source: Delta,
    fill: (Writing, ClusterAllocator.Allocation, _ base: UInt64) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    if let own, let place = own.index[cluster] {
      try fill(
        writing, ClusterAllocator.Allocation(physical: place.physical, isZero: false),
        place.physical << UInt64(device.geometry.clusterShift))
      return writing.index.noteWritten()
    }
    let index: any EntryTable = if let own { own.index } else { device.map }
    try device.place(cluster, writing, in: index) {
      (allocation, base) throws(DeviceError) in
      try fill(writing, allocation, base)
    }
  }

  // MARK: The end

  /// Whether the file that is written is another open one than that which the chain reads.
  var isReopened: Bool { own != nil }

  /// The chain with the receiver as it is now, and without the delta that was merged, if it was.
  func chain(_ chain: DeltaChain, without source: Delta?) -> DeltaChain {
    let deltas = chain.deltas.filter { $0.number != source?.number }.map { delta -> Delta in
      guard let own, delta.number == own.original.number else { return delta }
      return Delta(
        number: delta.number, source: own.source, layout: .ploop(own.layout.withLock { $0 }),
        mappedClusters: writing.allocator.dataClusters, had: own.original.had)
    }
    return DeltaChain(deltas, geometry: chain.geometry, writing: chain.writing)
  }

  /// A lower delta is closed again; the top goes on.
  ///
  /// - Parameters:
  ///   - isInChain: whether the chain reads what was written here.
  ///   - isOurs: whether its index is as this merge has made it; by default where the chain reads it.
  func close(isInChain: Bool, isOurs: Bool? = nil) {
    guard let own else { return }
    writing.index.retire()
    if let failure = own.condition.failure {
      device.unsynced.withLock { $0[own.original.file.identity] = failure }
    } else {
      device.freeze(writing, isOurs: isOurs ?? isInChain)
    }
    guard !isInChain else { return }
    ImageLock.release(writing.file)
    try? ImageLock.acquire(own.original.file, for: .read)
  }
}
