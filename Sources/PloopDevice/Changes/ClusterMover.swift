internal import PloopFormat
internal import PloopIO

/// Changes where clusters of the top lie in its file, while guests use the disk.
///
/// Clusters are marked first (``MovingClusters``): whoever wants to write to one leaves the gate and waits.
/// Once everybody is out who was inside before, nobody changes them, and readers go on at the old place. The
/// caller is the only one who changes the chain meanwhile.
struct ClusterMover: Sendable {
  /// Clusters that writers wait for at the same time, in bytes and at least one.
  static let batchBytes: UInt64 = 8 << 20

  let device: Device
  let writing: Writing

  init(_ device: Device, _ writing: Writing) {
    self.device = device
    self.writing = writing
  }

  /// How many clusters are marked at a time.
  func batch(of limit: Int) -> Int {
    max(1, min(limit, Int(ClusterMover.batchBytes >> device.clusterShift)))
  }

  /// Does something to clusters that nobody else changes meanwhile.
  ///
  /// - Throws: `.timeout` when who was inside did not leave in time, and what `body` throws.
  func holding<Result>(
    _ clusters: [UInt64], until deadline: Deadline, _ body: () throws(DeviceError) -> Result
  ) throws(DeviceError) -> Result {
    try device.condition.requireWritable()
    device.moving.begin(clusters)
    defer { device.moving.end(clusters) }
    try awaitLeavers(until: deadline)
    return try body()
  }

  /// Where the top has a cluster; nil where it has not.
  func place(of cluster: UInt64) throws(DeviceError) -> UInt64? {
    guard let place = try device.map.place(of: cluster), place.delta == writing.number else {
      return nil
    }
    return place.physical
  }

  /// Copies clusters to other places, and once the copies are durable has everybody find them there.
  ///
  /// - Parameters:
  ///   - isRewritten: whether the copies have places of their own on the disk as well, for who puts them in order.
  ///   - place: takes a new place for a cluster that lies at another; nil for what may stay.
  /// - Returns: how many were copied.
  /// - Throws: `.outOfSpace`, `.timeout` and others, with everything where it was.
  func move(
    _ clusters: [UInt64], until deadline: Deadline, isRewritten: Bool = false,
    to place: (_ cluster: UInt64, _ physical: UInt64) throws(DeviceError) -> ClusterAllocator
      .Allocation?
  ) throws(DeviceError) -> UInt64 {
    try holding(clusters, until: deadline) { () throws(DeviceError) in
      try moveHeld(clusters, isRewritten, to: place)
    }
  }

  private func moveHeld(
    _ clusters: [UInt64], _ isRewritten: Bool,
    to place: (_ cluster: UInt64, _ physical: UInt64) throws(DeviceError) -> ClusterAllocator
      .Allocation?
  ) throws(DeviceError) -> UInt64 {
    struct Copy {
      let cluster: UInt64
      let from: UInt64
      let to: ClusterAllocator.Allocation
    }
    var copies: [Copy] = []
    device.makeRoomInMemory()
    // Everything that will be published can be, before anything is copied.
    var pinned: [Int] = []
    defer { pinned.forEach(device.map.unpin) }
    for page in Set(clusters.map { Geometry.position(of: $0).page }) {
      try device.map.pin(page)
      pinned.append(page)
    }
    do throws(DeviceError) {
      let buffer = AlignedBuffer(count: Int(min(device.clusterBytes, Device.copyBytes)))
      for cluster in clusters {
        // A guest may have given it back before it was marked.
        guard let from = try self.place(of: cluster), let to = try place(cluster, from) else {
          continue
        }
        copies.append(Copy(cluster: cluster, from: from, to: to))
        try content(at: from).copy(
          to: writing.file, at: to.physical << device.clusterShift, buffer,
          sharing: isRewritten ? nil : device.sharing)
      }
      if !copies.isEmpty { try flush() }
    } catch {
      for copy in copies { device.abandon(copy.to, of: writing, after: error) }
      throw error
    }
    for copy in copies {
      writing.allocator.placed(copy.to.physical)
      device.map.set(
        Place(delta: writing.number, physical: copy.to.physical), for: copy.cluster)
      writing.index.markDirty(Geometry.position(of: copy.cluster).page)
      writing.allocator.unmapped(copy.from)
    }
    writing.index.noteWritten()
    return UInt64(copies.count)
  }

  /// What a cluster of the top holds.
  func content(at physical: UInt64) -> MergeContent {
    MergeContent(
      file: writing.file, offset: physical << device.clusterShift, count: device.clusterBytes)
  }

  /// A round for what was written past the guests' requests.
  func flush() throws(DeviceError) {
    writing.index.noteWritten()
    try writing.index.flush()
  }

  func awaitLeavers(until deadline: Deadline) throws(DeviceError) {
    guard device.gate.awaitLeavers(until: deadline) else { throw ClusterMover.timeout }
  }

  private static let timeout = DeviceError(
    .timeout,
    "requests in flight did not end in time, or clients did not take their replies; nothing was changed"
  )

  /// Everything that has left these places of the file is durable elsewhere, and nobody is left who reads it
  /// there.
  func settle(_ places: Range<UInt64>, until deadline: Deadline) throws(DeviceError) {
    while writing.allocator.isAwaited(places) {
      try flush()
      guard device.gate.awaitHolders(until: deadline) else { throw ClusterMover.timeout }
      writing.allocator.reap()
    }
  }
}
