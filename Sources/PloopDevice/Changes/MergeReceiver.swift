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
  private let device: Device
  /// The entries of the two indexes under these numbers; nil for the top.
  private let own: Own?

  private struct Own: Sendable {
    /// The delta as the chain has it, and the same as it is written.
    let original: Delta
    let delta: Delta
    let receiver: ClusterMap
    let source: ClusterMap
    /// The receiver's as ``Writing`` knows it.
    let condition: Condition
  }

  init(top writing: Writing, of device: Device) {
    self.writing = writing
    self.device = device
    own = nil
  }

  /// Opens a lower delta for writing, and marks it as in use, durably.
  init(lower delta: Delta, above source: Delta, of device: Device) throws(DeviceError) {
    self.device = device
    guard !delta.isRaw else {
      throw DeviceError(.rawNotBase, "\(delta.file.path) is raw and not the oldest")
    }
    try MergeReceiver.requireTrusted([delta, source], of: device)
    // As it is now: another program may have given it a longer index.
    let geometry = try Device.geometry(of: delta.file, isRaw: false, like: device.geometry)
    let receiverMap = ClusterMap(geometry)
    let sourceMap = ClusterMap(geometry)
    _ = try MergeReceiver.load(source, into: sourceMap)
    // Our own lock for reading is in the way of the one for writing, and is taken again at the end.
    ImageLock.release(delta.file)
    do throws(DeviceError) {
      let file = try converting { () throws(IOError) in
        try delta.source.folder.open(delta.source.name, writable: true)
      }
      guard file.identity == delta.file.identity else {
        throw DeviceError(.locked, "\(delta.file.path) is another file than at the attach")
      }
      do throws(LockError) { try ImageLock.acquire(file, for: .write) } catch {
        throw DeviceError(error)
      }
      let written = Delta(
        number: delta.number,
        source: DeltaSource(file: file, folder: delta.source.folder, name: delta.source.name),
        layout: .ploop(geometry), mappedClusters: delta.mappedClusters)
      try converting { () throws(IOError) in try file.sync() }
      let used = try MergeReceiver.load(written, into: receiverMap)
      let canPunch = Device.canPunch(
        file, at: try converting { () throws(IOError) in try file.size() })
      var header = try Device.header(of: file)
      header.inUse = Header.InUse.open
      header.extensionSector = 0
      try Device.write(header, to: file)
      try converting { () throws(IOError) in
        // An interrupted extension; the clusters that are added count as zero.
        let bytes = try file.size()
        let whole = bytes & ~(geometry.clusterBytes - 1)
        if bytes != whole { try file.truncate(to: whole) }
      }
      // From here on its end is where this merge puts it, and not where a snapshot left it.
      device.unclosed.withLock { $0.removeAll { $0.number == delta.number } }
      let condition = Condition()
      own = Own(
        original: delta, delta: written, receiver: receiverMap, source: sourceMap,
        condition: condition)
      writing = Writing(
        written, geometry: geometry, used: used, map: receiverMap, gate: device.gate,
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

  /// - Returns: the clusters of the file that header, index and entries use.
  private static func load(_ delta: Delta, into map: ClusterMap) throws(DeviceError) -> Bitmap {
    try load(delta.file, delta.layout, number: delta.number, into: map)
  }

  private static func load(
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

  /// How many clusters of one delta another one lacks.
  static func count(
    from source: Delta, into receiver: Delta
  ) throws(DeviceError) -> UInt64 {
    try count((source.file, source.layout), (receiver.file, receiver.layout))
  }

  static func count(
    from source: (file: ImageFile, isRaw: Bool), into receiver: (file: ImageFile, isRaw: Bool),
    _ geometry: Geometry
  ) throws(DeviceError) -> UInt64 {
    func layout(
      _ image: (file: ImageFile, isRaw: Bool)
    ) throws(DeviceError) -> Delta.Layout {
      let own = try Device.geometry(of: image.file, isRaw: image.isRaw, like: geometry)
      return image.isRaw ? .raw(clusters: own.clusterCount) : .ploop(own)
    }
    return try count(
      (source.file, try layout(source)), (receiver.file, try layout(receiver)))
  }

  private static func count(
    _ source: (file: ImageFile, layout: Delta.Layout),
    _ receiver: (file: ImageFile, layout: Delta.Layout)
  ) throws(DeviceError) -> UInt64 {
    // Its own size: whoever says how large the disk is may say anything.
    guard case .ploop(let geometry) = receiver.layout else {
      throw DeviceError(.rawNotBase, "\(receiver.file.path) is raw and not the oldest")
    }
    let (lacking, having) = (ClusterMap(geometry), ClusterMap(geometry))
    _ = try load(source.file, source.layout, number: 0, into: lacking)
    _ = try load(receiver.file, receiver.layout, number: 0, into: having)
    var count: UInt64 = 0
    for cluster in 0..<geometry.clusterCount
    where lacking[cluster] != nil && having[cluster] == nil { count += 1 }
    return count
  }

  // MARK: What to copy

  /// Where the source has a cluster that the receiver lacks; nil for others.
  func wanted(_ cluster: UInt64, of source: Delta) -> UInt64? {
    guard let own else {
      guard let place = device.map[cluster], place.delta == source.number else { return nil }
      return place.physical
    }
    return own.receiver[cluster] == nil ? own.source[cluster]?.physical : nil
  }

  private var clusterCount: UInt64 {
    own?.receiver.geometry.clusterCount ?? device.geometry.clusterCount
  }

  func count(from source: Delta) -> UInt64 {
    var count: UInt64 = 0
    forEach(from: 0, of: source) { _ in
      count += 1
      return true
    }
    return count
  }

  /// Up to `limit` of them, from `cluster` on, which is left behind the last one looked at.
  func next(_ limit: Int, from cluster: inout UInt64, of source: Delta) -> [UInt64] {
    var found: [UInt64] = []
    cluster = forEach(from: cluster, of: source) { wanted in
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
  ) -> UInt64 {
    let candidates = own?.source ?? device.map
    var cluster = start
    while cluster < clusterCount {
      let run = candidates.run(from: cluster, limit: clusterCount - cluster)
      if run.place != nil {
        for member in cluster..<(cluster + run.count)
        where wanted(member, of: source) != nil && !body(member) { return member }
      }
      cluster += run.count
    }
    return clusterCount
  }

  // MARK: Moving

  /// An all-zero cluster with nothing beneath it needs no place.
  func drop(_ cluster: UInt64) {
    if own == nil { device.map[cluster] = nil }
  }

  /// Gives a cluster a place in the receiver, which `fill` writes before anybody can find it.
  func place(
    _ cluster: UInt64, _ source: Delta,
    fill: (Writing, ClusterAllocator.Allocation, _ base: UInt64) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    try device.place(cluster, writing, in: own?.receiver ?? device.map) {
      (allocation, base) throws(DeviceError) in
      try fill(writing, allocation, base)
    }
  }

  /// Has readers find what was copied in its new place. It is durable by now; the top's was found
  /// from the start.
  ///
  /// - Parameter isWhole: whether no step has found anything more: what the receiver lacks then is
  ///   all zero, with nothing beneath.
  func repoint(from source: Delta, isWhole: Bool) throws(DeviceError) {
    guard let own else { return }
    try own.condition.requireWritable()
    var cluster: UInt64 = 0
    while cluster < clusterCount {
      let run = own.source.run(from: cluster, limit: clusterCount - cluster)
      if run.place != nil {
        for member in cluster..<(cluster + run.count) {
          repoint(member, from: source, own, isWhole)
        }
      }
      cluster += run.count
    }
  }

  private func repoint(_ cluster: UInt64, from source: Delta, _ own: Own, _ isWhole: Bool) {
    device.locks.lock(cluster)
    defer { device.locks.unlock(cluster) }
    guard device.map[cluster]?.delta == source.number else { return }
    let place = own.receiver[cluster]
    if place != nil || isWhole { device.map[cluster] = place }
  }

  // MARK: The end

  /// Whether the file that is written is another open one than that which the chain reads.
  var isReopened: Bool { own != nil }

  /// The chain with the receiver as it is now, and without the delta that was merged, if it was.
  func chain(_ chain: DeltaChain, without source: Delta?) -> DeltaChain {
    let deltas = chain.deltas.filter { $0.number != source?.number }.map { delta -> Delta in
      guard let own, delta.number == own.delta.number else { return delta }
      return Delta(
        number: delta.number, source: own.delta.source, layout: own.delta.layout,
        mappedClusters: writing.allocator.dataClusters)
    }
    return DeltaChain(deltas, writing: chain.writing)
  }

  /// A lower delta is closed again; the top goes on.
  ///
  /// - Parameter isInChain: whether the chain reads what was written here.
  func close(isInChain: Bool) {
    guard let own else { return }
    writing.index.retire()
    if let failure = own.condition.failure {
      device.unsynced.withLock { $0[own.original.file.identity] = failure }
    } else {
      device.freeze(writing)
    }
    guard !isInChain else { return }
    ImageLock.release(writing.file)
    try? ImageLock.acquire(own.original.file, for: .read)
  }
}
