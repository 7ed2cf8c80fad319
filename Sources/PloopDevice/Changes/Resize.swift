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

  private let device: Device
  private let writing: Writing
  private let growth: IndexGrowth
  private let mover: ClusterMover
  /// Logical clusters that are in the way, those not looked at yet.
  private let rest: Locked<ArraySlice<UInt64>>

  /// What has to be moved, as it was when the resize began.
  package let totalClusters: UInt64
  package var totalBytes: UInt64 { totalClusters << device.clusterShift }

  /// The most that one step takes, in bytes; and the file that it takes them for, with the room around it.
  package var batchBytes: UInt64 { max(device.clusterBytes, ClusterMover.batchBytes) }
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
    mover = ClusterMover(device, writing)
    if !growth.range.isEmpty {
      try writing.allocator.reserve(growth.range)
      // Whoever is inside may still place a cluster there; nobody who comes later does.
      try mover.awaitLeavers(until: deadline)
    }
    let inTheWay = try Resize.clusters(of: writing, in: growth.range, device)
    totalClusters = UInt64(inTheWay.count)
    rest = Locked(inTheWay[...])
  }

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
      UInt64(try clusters(of: writing, in: growth.range, device).count),
      UInt64(growth.range.count) << device.clusterShift
    )
  }

  /// The logical clusters that the top has in a range of its file.
  private static func clusters(
    of writing: Writing, in range: Range<UInt64>, _ device: Device
  ) throws(DeviceError) -> [UInt64] {
    guard !range.isEmpty else { return [] }
    var found: [UInt64] = []
    try device.map.forEach { cluster, place in
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
    let batch = Array(rest.withLock { $0.prefix(mover.batch(of: limit)) })
    guard !batch.isEmpty else { return nil }
    let range = growth.range
    let copied = try mover.move(batch, until: deadline) { (_, place) throws(DeviceError) in
      range.contains(place) ? try writing.allocator.allocate() : nil
    }
    rest.withLock { $0 = $0.dropFirst(batch.count) }
    return Progress(clusters: UInt64(batch.count), copied: copied)
  }

  // MARK: The end

  /// Has the longer index ready, once no step finds anything more; the disk is as large as it was.
  ///
  /// - Throws: `.outOfSpace`, `.timeout` and others; it may be tried again.
  package func prepare(until deadline: Deadline) throws(DeviceError) {
    try mover.settle(growth.range, until: deadline)
    try growth.zero()
    try mover.flush()
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

  /// What a partial last cluster has behind the disk's end comes into view, and may be anything.
  private func zeroTail() throws(DeviceError) {
    let old = growth.old
    let start = old.sizeBytes & (old.clusterBytes - 1)
    let cluster = old.clusterCount - 1
    guard start != 0, growth.new != old, try device.map.place(of: cluster) != nil else { return }
    try device.put(
      .zeroes,
      ClusterPiece(
        cluster: cluster, offset: start, length: old.clusterBytes - start, start: 0, isWhole: false),
      writing)
    try mover.flush()
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
    try mover.flush()
    // Nothing is placed there any more, so these can only become less; and as long as they are held nobody changes
    // them. So no index is read while everybody waits, and nothing can fail there.
    let candidates = try Resize.clusters(of: writing, in: growth.range, device)
    try mover.holding(candidates, until: deadline) { () throws(DeviceError) in
      var owned: Set<UInt64> = []
      for cluster in candidates {
        guard let place = try mover.place(of: cluster), growth.range.contains(place) else {
          continue
        }
        owned.insert(place)
      }
      _ = try device.whileClosed(until: deadline) { () throws(DeviceError) in
        writing.allocator.giveUpReserved(owned: owned)
      }
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
