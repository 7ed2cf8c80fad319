package import PloopFormat
package import PloopIO

/// Makes a disk larger, while guests use it.
///
/// A larger disk may need a longer index, and the index lies before the data: clusters of the top that
/// are in its way get another place first. The order (docs/crash-safety.md, "A larger disk"): the clusters
/// that the index will take are reserved; what is in them is moved, durably; all of it is zeroed, durably;
/// one write of the header's sector makes the disk larger; then the descriptor says so too.
///
/// Until that write the disk has its old size, and what was moved stays where it is. So a resize that
/// was interrupted, however it was, is begun again. One thread at a time calls the methods, and nobody
/// else changes the chain meanwhile.
package final class Resize: Sendable {
  package struct Progress: Equatable, Sendable {
    /// Clusters that the step has dealt with, and those of them that it had to copy.
    package var clusters: UInt64 = 0
    package var copied: UInt64 = 0
  }

  /// Clusters that writers wait for at the same time, in bytes and at least one.
  private static let batchLimitBytes: UInt64 = 8 << 20

  private let device: Device
  private let writing: Writing
  private let growth: IndexGrowth
  /// Logical clusters that are in the way, those not looked at yet.
  private let rest: Locked<ArraySlice<UInt64>>

  /// What has to be moved, as it was when the resize began.
  package let totalClusters: UInt64
  package var totalBytes: UInt64 { totalClusters << device.clusterShift }

  /// The most that one step takes, in bytes; and the file that it takes them for, with the room around it.
  package var batchBytes: UInt64 { max(device.clusterBytes, Resize.batchLimitBytes) }
  package var path: String { writing.file.path }
  package var space: FilesystemSpace? { device.space() }

  /// What the disk will have.
  package var sizeBytes: UInt64 { growth.new.sizeBytes }

  /// Begins; nothing is written yet.
  ///
  /// - Parameters:
  ///   - sizeBytes: at least the present size, and a whole number of clusters if it is another.
  ///   - deadline: by when requests in flight have to end.
  /// - Throws: as ``target(of:sizeBytes:)``; `.outOfSpace`; `.timeout`.
  package init(
    of device: Device, to sizeBytes: UInt64, until deadline: Deadline
  ) throws(DeviceError) {
    let (writing, growth) = try Resize.growth(of: device, to: sizeBytes)
    self.device = device
    self.writing = writing
    self.growth = growth
    if !growth.range.isEmpty {
      try writing.allocator.reserve(growth.range)
      // Whoever is inside may still place a cluster there; nobody who comes later does.
      guard device.gate.awaitLeavers(until: deadline) else { throw Resize.timeout }
    }
    let inTheWay = Resize.clusters(of: writing, in: growth.range, device)
    totalClusters = UInt64(inTheWay.count)
    rest = Locked(inTheWay[...])
  }

  private static let timeout = DeviceError(
    .timeout,
    "requests in flight did not end in time, or clients did not take their replies; nothing was changed"
  )

  // MARK: What there is to do

  private static func growth(
    of device: Device, to sizeBytes: UInt64
  ) throws(DeviceError) -> (Writing, IndexGrowth) {
    guard let writing = device.chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    try device.condition.requireWritable()
    let old = device.geometry
    return (
      writing,
      IndexGrowth(file: writing.file, old: old, new: try target(of: old, sizeBytes: sizeBytes))
    )
  }

  /// What a resize would have to move, and the bytes of index that it adds; nothing is changed.
  package static func cost(
    in device: Device, to sizeBytes: UInt64
  ) throws(DeviceError) -> (clusters: UInt64, indexBytes: UInt64) {
    let (writing, growth) = try growth(of: device, to: sizeBytes)
    return (
      UInt64(clusters(of: writing, in: growth.range, device).count),
      UInt64(growth.range.count) << device.clusterShift
    )
  }

  /// The logical clusters that the top has in a range of its file.
  private static func clusters(
    of writing: Writing, in range: Range<UInt64>, _ device: Device
  ) -> [UInt64] {
    guard !range.isEmpty else { return [] }
    var found: [UInt64] = []
    device.map.forEach { cluster, place in
      if place.delta == writing.number, range.contains(place.physical) { found.append(cluster) }
    }
    return found
  }

  // MARK: Steps

  /// Moves up to `limit` clusters out of the way. Whoever wants to write to them waits meanwhile.
  ///
  /// - Returns: nil when there is nothing left.
  /// - Throws: `.outOfSpace`, `.timeout` and others, with what was not moved where it was; the step may
  ///   be tried again.
  package func step(limit: Int, until deadline: Deadline) throws(DeviceError) -> Progress? {
    let most = max(1, min(limit, Int(Resize.batchLimitBytes >> device.clusterShift)))
    let batch = Array(rest.withLock { $0.prefix(most) })
    guard !batch.isEmpty else { return nil }
    try device.condition.requireWritable()
    device.moving.begin(batch)
    defer { device.moving.end(batch) }
    guard device.gate.awaitLeavers(until: deadline) else { throw Resize.timeout }
    let copied = try move(batch)
    rest.withLock { $0 = $0.dropFirst(batch.count) }
    return Progress(clusters: UInt64(batch.count), copied: copied)
  }

  /// Nobody writes to these clusters: copies them, and once the copies are durable has everybody find
  /// them there.
  private func move(_ batch: [UInt64]) throws(DeviceError) -> UInt64 {
    struct Copy {
      let cluster: UInt64
      let from: UInt64
      let to: ClusterAllocator.Allocation
    }
    var copies: [Copy] = []
    do throws(DeviceError) {
      let buffer = AlignedBuffer(count: Int(min(device.clusterBytes, Device.copyBytes)))
      for cluster in batch {
        // A guest may have given it back before it was marked.
        guard let place = device.map[cluster], place.delta == writing.number,
          growth.range.contains(place.physical)
        else { continue }
        let allocation = try writing.allocator.allocate()
        copies.append(Copy(cluster: cluster, from: place.physical, to: allocation))
        let content = MergeContent(
          file: writing.file, offset: place.physical << device.clusterShift,
          count: device.clusterBytes)
        try content.copy(
          to: writing.file, at: allocation.physical << device.clusterShift, buffer)
      }
      if !copies.isEmpty { try flush() }
    } catch {
      for copy in copies { device.abandon(copy.to, of: writing, after: error) }
      throw error
    }
    for copy in copies {
      device.map[copy.cluster] = Place(delta: writing.number, physical: copy.to.physical)
      writing.index.markDirty(Geometry.position(of: copy.cluster).page)
      writing.allocator.unmapped(copy.from)
    }
    writing.index.noteWritten()
    return UInt64(copies.count)
  }

  /// A round for what was written past the guests' requests.
  private func flush() throws(DeviceError) {
    writing.index.noteWritten()
    try writing.index.flush()
  }

  // MARK: The end

  /// Has the longer index ready, once no step finds anything more; the disk is as large as it was.
  ///
  /// - Throws: `.outOfSpace`, `.timeout` and others; it may be tried again.
  package func prepare(until deadline: Deadline) throws(DeviceError) {
    try settle(until: deadline)
    try growth.zero()
    try flush()
  }

  /// Makes the disk larger, once it is prepared.
  ///
  /// - Parameter descriptor: the disk's, if it has one, whose lock the caller holds, and what it is to be.
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: with the disk as large as it was, unless it takes no more writes (``Device/failure``): then
  ///   it is unknown which size a crash leaves. Or with the new size, where only the descriptor could not
  ///   be replaced (``ChainChange/completeResize(_:of:)``).
  package func finish(
    descriptor: (file: DescriptorFile, becoming: Descriptor)?, until deadline: Deadline
  ) throws(DeviceError) -> UInt64 {
    let pause: UInt64
    do throws(DeviceError) {
      if let descriptor { try descriptor.file.prepare(with: descriptor.becoming) }
      pause = try device.checkpointing.withLock { _ throws(DeviceError) in
        try device.change(until: deadline) { (chain) throws(DeviceError) in
          try zeroTail()
          try device.growCheckpoints(to: growth.new.sizeBytes)
          try commit()
          device.map.grow(to: growth.new)
          writing.allocator.adopt(headerClusters: growth.new.headerClusters)
          return chain.resized(to: growth.new)
        }
      }
    } catch {
      try? descriptor?.file.abandon()
      throw error
    }
    // The disk is larger by now, whatever becomes of the descriptor.
    try descriptor?.file.commit()
    return pause
  }

  /// Everything that was moved is durable, and nobody is left who reads its old place.
  private func settle(until deadline: Deadline) throws(DeviceError) {
    while writing.allocator.isAwaited(growth.range) {
      try flush()
      guard device.gate.awaitHolders(until: deadline) else { throw Resize.timeout }
      writing.allocator.reap()
    }
  }

  /// What a partial last cluster has behind the disk's end comes into view, and may be anything.
  private func zeroTail() throws(DeviceError) {
    let old = growth.old
    let start = old.sizeBytes & (old.clusterBytes - 1)
    let cluster = old.clusterCount - 1
    guard start != 0, growth.new != old, device.map[cluster] != nil else { return }
    try device.put(
      .zeroes,
      ClusterPiece(
        cluster: cluster, offset: start, length: old.clusterBytes - start, start: 0, isWhole: false),
      writing)
    try flush()
  }

  private func commit() throws(DeviceError) {
    do throws(DeviceError) { try growth.commit() } catch {
      device.condition.degrade("\(error); it is unknown which size a crash leaves")
      throw error
    }
  }

  /// Ends a resize that is not to go on; the disk has the size that it had.
  package func abandon(until deadline: Deadline) throws(DeviceError) {
    guard device.failure == nil, device.geometry == growth.old, !growth.range.isEmpty else {
      return
    }
    try flush()
    _ = try device.whileClosed(until: deadline) {
      let owned = Resize.clusters(of: writing, in: growth.range, device)
      writing.allocator.giveUpReserved(owned: Set(owned.compactMap { device.map[$0]?.physical }))
    }
  }
}

extension DeltaChain {
  fileprivate func resized(to geometry: Geometry) -> DeltaChain {
    var deltas = deltas
    deltas[deltas.count - 1] = Delta(
      number: top.number, source: top.source, layout: .ploop(geometry),
      mappedClusters: top.mappedClusters)
    return DeltaChain(deltas, geometry: geometry, writing: writing)
  }
}
