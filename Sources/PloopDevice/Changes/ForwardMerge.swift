package import PloopFormat
package import PloopIO

/// Merges a delta into the one above it: what only the older one holds is copied up, cluster by
/// cluster, while guests go on reading and writing. Afterwards nothing needs the older one.
///
/// A step may be repeated: what is above already is not copied. So a merge that was interrupted,
/// however it was, is begun again and goes on where it was. Until ``finish(descriptor:becoming:until:)``
/// the chain is as it was, and valid.
///
/// One thread at a time calls the methods, but for ``flush()``, which may run beside a step. Nobody else
/// changes the chain meanwhile.
package final class ForwardMerge: Sendable {
  /// What a step did, or all of them together.
  package struct Progress: Equatable, Sendable {
    /// Clusters that the step has dealt with.
    package var clusters: UInt64 = 0
    package var copied: UInt64 = 0
    /// All zero, with nothing beneath them: not copied, and not needed.
    package var dropped: UInt64 = 0
    /// A guest has written them meanwhile.
    package var overtaken: UInt64 = 0
    package var readBytes: UInt64 = 0

    package init() {}

    package static func += (left: inout Progress, right: Progress) {
      left.clusters += right.clusters
      left.copied += right.copied
      left.dropped += right.dropped
      left.overtaken += right.overtaken
      left.readBytes += right.readBytes
    }
  }

  /// Clusters that are copied at the same time.
  private static let width = 4

  private let device: Device
  private let source: Delta
  private let receiver: MergeReceiver
  /// The first cluster that no step has looked at.
  private let cursor = Locked<UInt64>(0)

  /// What has to be moved, as it was when the merge began: guests can only make it less.
  package let totalClusters: UInt64
  package var totalBytes: UInt64 { totalClusters << UInt64(device.geometry.clusterShift) }

  /// - Parameter level: of the delta that goes; the one above it receives what it holds.
  /// - Throws: `.nothingToMerge` for the top and beyond, and what opening the receiver throws.
  package init(of device: Device, level: Int) throws(DeviceError) {
    let chain = device.chain
    guard let writing = chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    try device.condition.requireWritable()
    guard level >= 0, level < chain.topLevel else {
      throw DeviceError(.nothingToMerge, "there is no delta at level \(level) with one above it")
    }
    self.device = device
    source = chain.deltas[level]
    receiver =
      level + 1 == chain.topLevel
      ? MergeReceiver(top: writing, of: device)
      : try MergeReceiver(lower: chain.deltas[level + 1], above: source, of: device)
    totalClusters = receiver.count(from: source)
  }

  /// How many clusters a merge would have to move; nothing is opened for writing.
  package static func count(in device: Device, level: Int) throws(DeviceError) -> UInt64 {
    let chain = device.chain
    guard level >= 0, level < chain.topLevel else {
      throw DeviceError(.nothingToMerge, "there is no delta at level \(level) with one above it")
    }
    let source = chain.deltas[level]
    if level + 1 == chain.topLevel, let writing = chain.writing {
      return MergeReceiver(top: writing, of: device).count(from: source)
    }
    return try MergeReceiver.count(from: source, into: chain.deltas[level + 1])
  }

  /// The same of two images that are no part of an attached chain.
  ///
  /// - Parameter geometry: of their disk, for a raw base, which says nothing of it.
  package static func count(
    from source: (file: ImageFile, isRaw: Bool), into receiver: (file: ImageFile, isRaw: Bool),
    like geometry: Geometry
  ) throws(DeviceError) -> UInt64 {
    try MergeReceiver.count(from: source, into: receiver, geometry)
  }

  /// How many clusters an image's own index maps.
  package static func clusters(
    of image: (file: ImageFile, isRaw: Bool), like geometry: Geometry
  ) throws(DeviceError) -> UInt64 {
    let own = try Device.geometry(of: image.file, isRaw: image.isRaw, like: geometry)
    guard !image.isRaw else { return own.clusterCount }
    let bytes = try converting { () throws(IOError) in try image.file.size() }
    var scan = IndexScan(own, fileBytes: bytes)
    try scan.run(image.file) { _, _ throws(DeviceError) in
    } fault: { _ throws(DeviceError) in
    }
    return scan.mapped
  }

  // MARK: Steps

  /// Moves up to `limit` clusters.
  ///
  /// - Parameter engine: lends its threads, so that several are copied at a time.
  /// - Returns: nil when there is nothing left.
  /// - Throws: `.outOfSpace` and others, with what was moved moved; the step may be tried again.
  package func step(limit: Int, on engine: IOEngine) throws(DeviceError) -> Progress? {
    let first = cursor.withLock { $0 }
    var next = first
    let clusters = receiver.next(limit, from: &next, of: source)
    guard !clusters.isEmpty else { return nil }
    let progress = try crew(clusters, engine)
    cursor.withLock { $0 = next }
    return progress
  }

  private struct Crew {
    var rest: ArraySlice<UInt64>
    var active = 0
    var progress = Progress()
    var failure: DeviceError?
  }

  /// Several threads work off a list; the caller's is one of them, so that it ends in any case.
  private func crew(
    _ clusters: [UInt64], _ engine: IOEngine
  ) throws(DeviceError) -> Progress {
    let crew = Monitor(Crew(rest: clusters[...]))
    for _ in 1..<max(1, min(ForwardMerge.width, clusters.count)) {
      engine.submit { [self] in work(crew) }
    }
    work(crew)
    let (progress, failure) =
      crew.wait { $0.active == 0 ? ($0.progress, $0.failure) : nil } ?? (Progress(), nil)
    if let failure { throw failure }
    return progress
  }

  private func work(_ crew: Monitor<Crew>) {
    guard
      crew.withLock({ crew in
        guard !crew.rest.isEmpty else { return false }
        crew.active += 1
        return true
      })
    else { return }
    let buffer = AlignedBuffer(count: Int(min(device.geometry.clusterBytes, Device.copyBytes)))
    var owners = LowerOwners(
      below: device.chain.level(of: source.number) ?? 0, of: device.chain,
      geometry: device.geometry)
    while let cluster = crew.withLock({ $0.failure == nil ? $0.rest.popFirst() : nil }) {
      do throws(DeviceError) {
        let done = try move(cluster, buffer, &owners)
        crew.withLock { $0.progress += done }
      } catch {
        crew.withLock { $0.failure = $0.failure ?? error }
      }
    }
    crew.update { $0.active -= 1 }
  }

  /// Moves one cluster, inside the gate and with its lock, as a guest's write would.
  private func move(
    _ cluster: UInt64, _ buffer: AlignedBuffer, _ owners: inout LowerOwners
  ) throws(DeviceError) -> Progress {
    let pass = try device.admitted()
    defer { device.gate.leave(pass) }
    try device.condition.requireWritable()
    device.locks.lock(cluster)
    defer { device.locks.unlock(cluster) }
    var progress = Progress()
    progress.clusters = 1
    guard let physical = receiver.wanted(cluster, of: source) else {
      progress.overtaken = 1
      return progress
    }
    let content = MergeContent(
      file: source.file, offset: physical << UInt64(device.geometry.clusterShift),
      count: device.geometry.clusterBytes)
    let isZero = try content.isZero(buffer)
    if isZero, try !owners.own(cluster) {
      receiver.drop(cluster)
      progress.dropped = 1
      progress.readBytes = content.readBytes(isZero: true)
      return progress
    }
    try receiver.place(cluster, source) { (writing, allocation, base) throws(DeviceError) in
      guard isZero else {
        try content.copy(to: writing.file, at: base, buffer)
        return writing.file.beginWriteback(offset: base, length: content.count)
      }
      guard !allocation.isZero else { return }
      try device.zero(writing, offset: base, length: content.count, keepSpace: false)
    }
    progress.copied = 1
    progress.readBytes = content.readBytes(isZero: isZero)
    return progress
  }

  // MARK: The end

  /// Makes what was moved so far durable: a merge that is begun again after a crash skips it.
  package func flush() throws(DeviceError) {
    try receiver.writing.index.flush()
    receiver.writing.allocator.reap()
  }

  /// Drops the delta from the chain, once no step finds anything more.
  ///
  /// The order (docs/crash-safety.md, "Forward merge"): the receiver is flushed and the new descriptor
  /// durable beside the old one; the gate is closed, and what is left is flushed; the descriptor is
  /// renamed, durably; the chain is replaced; the gate is opened. The delta's file is the caller's to
  /// remove.
  ///
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: as ``Device/snapshot(onto:descriptor:becoming:until:)``, with the chain as it was.
  package func finish(
    descriptor file: DescriptorFile, becoming changed: Descriptor, until deadline: Deadline
  ) throws(DeviceError) -> UInt64 {
    let pause: UInt64
    do throws(DeviceError) {
      try file.prepare(with: changed)
      try receiver.writing.index.flush()
      try receiver.repoint(from: source, isWhole: true)
      pause = try device.change(until: deadline) { (chain) throws(DeviceError) in
        try receiver.writing.index.flush()
        try device.publish(file)
        return receiver.chain(chain, without: source)
      }
    } catch {
      try? file.abandon()
      throw error
    }
    device.counters.countPause(nanoseconds: pause)
    receiver.close(isInChain: true)
    ImageLock.release(source.file)
    return pause
  }

  /// Ends a merge that is not to go on: what was moved stays where it is now, and the chain has the
  /// deltas that it had.
  package func abandon(until deadline: Deadline) {
    do throws(DeviceError) {
      try flush()
      try receiver.repoint(from: source, isWhole: false)
      if receiver.isReopened {
        _ = try device.change(until: deadline) { chain in receiver.chain(chain, without: nil) }
      }
      receiver.close(isInChain: true)
    } catch {
      // The chain goes on reading what it read before.
      receiver.close(isInChain: false)
    }
  }
}
