internal import PloopFormat
package import PloopIO

/// Makes one delta of two neighbours, cluster by cluster, while guests go on reading and writing. The
/// state between the two is given up; which file remains is a matter of the direction.
///
/// A step may be repeated. Forward, what is above already is not copied, so a merge that was
/// interrupted, however it was, goes on where it was; backward it begins from the start. Until
/// ``finish(descriptor:becoming:until:)`` the chain is as it was, and valid.
///
/// One thread at a time calls the methods, but for ``flush()``, which may run beside a step. Nobody else
/// changes the chain meanwhile.
package final class DeltaMerge: Sendable {
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

  package let direction: MergeDirection
  let device: Device
  /// What is merged, and goes.
  let source: Delta
  let receiver: MergeReceiver
  /// Of what is merged, where it has been hashed: nothing is copied that is not what it was then.
  private let hashes: DeltaHashes?
  private struct Cursor {
    /// The first cluster that no step has looked at.
    var next: UInt64 = 0
    /// What a step that failed has not moved.
    var left: [UInt64] = []
  }

  private let cursor = Locked(Cursor())

  /// What has to be moved, as it was when the merge began: guests can only make it less.
  package let totalClusters: UInt64
  package var totalBytes: UInt64 { totalClusters << device.clusterShift }

  /// - Parameters:
  ///   - level: of the older of the two, the state that is given up.
  ///   - direction: backward only where both are below the top.
  /// - Throws: `.nothingToMerge` for the top and beyond; `.refused(.mismatch)` where one of the two has lost what it had;
  ///   and what opening the receiver throws.
  package init(
    of device: Device, level: Int, _ direction: MergeDirection = .forward
  ) throws(DeviceError) {
    let chain = device.chain
    guard let writing = chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    try device.condition.requireWritable()
    let (older, newer) = try DeltaMerge.pair(in: chain, level)
    let isTop = newer.number == chain.top.number
    self.device = device
    self.direction = direction
    switch direction {
    case .forward:
      source = older
      if isTop { try MergeReceiver.requireWhole(older) }
      receiver =
        isTop
        ? MergeReceiver(top: writing, of: device)
        : try MergeReceiver(lower: newer, merging: older, of: device)
    case .backward:
      guard !isTop else {
        throw DeviceError(.nothingToMerge, "what guests write is not merged into what is below it")
      }
      source = newer
      receiver = try MergeReceiver(lower: older, merging: newer, of: device)
    }
    hashes = try DeltaHashes.of(source, like: chain.geometry)
    totalClusters = try receiver.count(from: source)
  }

  static func pair(
    in chain: DeltaChain, _ level: Int
  ) throws(DeviceError) -> (older: Delta, newer: Delta) {
    guard level >= 0, level < chain.topLevel else {
      throw DeviceError(.nothingToMerge, "there is no delta at level \(level) with one above it")
    }
    return (chain.deltas[level], chain.deltas[level + 1])
  }

  /// Waits until nobody reads what a lower receiver has free, and makes an older one as large as what is merged
  /// into it: nobody else may use its state any more then.
  ///
  /// - Parameter deadline: by when requests in flight have to end, and clients have to take what they were
  ///   lent: what has been freed before the receiver became a lower delta is used again by the merge.
  package func prepare(until deadline: Deadline) throws(DeviceError) {
    try receiver.awaitHolders(until: deadline)
    if direction == .backward { try receiver.grow(until: deadline) }
  }

  // MARK: Steps

  /// Moves up to `limit` clusters.
  ///
  /// - Parameter engine: lends its threads, so that several are copied at a time.
  /// - Returns: nil when there is nothing left. Where something fails, what was moved before that; the
  ///   next step meets it again.
  /// - Throws: `.outOfSpace` and others, when nothing was moved; the step may be tried again.
  package func step(limit: Int, on engine: IOEngine) throws(DeviceError) -> Progress? {
    if !receiver.isReopened { device.makeRoomInMemory() }
    let (clusters, next) = try ahead(limit)
    guard !clusters.isEmpty else { return nil }
    let done = crew(clusters, engine)
    cursor.withLock { $0 = Cursor(next: next, left: done.failed + done.rest) }
    if let failure = done.failure, done.progress.clusters == 0 { throw failure }
    return done.progress
  }

  /// What the next step moves, and where the one behind it begins.
  private func ahead(_ limit: Int) throws(DeviceError) -> (clusters: [UInt64], next: UInt64) {
    let cursor = self.cursor.withLock { $0 }
    guard cursor.left.isEmpty else { return (cursor.left, cursor.next) }
    var next = cursor.next
    let clusters = try receiver.next(limit, from: &next, of: source)
    return (clusters, next)
  }

  /// Room that the next step takes at most.
  package func stepBytes(limit: Int) -> UInt64 {
    // What cannot be read now the step tells.
    let count = (try? ahead(limit))?.clusters.count ?? 0
    return UInt64(count) << UInt64(device.geometry.clusterShift)
  }

  /// The file that receives what is moved, and the room around it; nil when that cannot be told.
  package var receiverPath: String { receiver.writing.file.path }
  package var space: FilesystemSpace? { try? receiver.writing.file.space() }

  private struct Crew {
    var rest: ArraySlice<UInt64>
    var active = 0
    var progress = Progress()
    var failed: [UInt64] = []
    var failure: DeviceError?
  }

  /// Several threads work off a list; the caller's is one of them, so that it ends in any case.
  private func crew(_ clusters: [UInt64], _ engine: IOEngine) -> Crew {
    let crew = Monitor(Crew(rest: clusters[...]))
    let party = engine.newParty()
    for _ in 1..<max(1, min(DeltaMerge.width, clusters.count)) {
      engine.submit(for: party) { [self] in work(crew) }
    }
    work(crew)
    return crew.wait { $0.active == 0 ? $0 : nil } ?? Crew(rest: clusters[...])
  }

  private func work(_ crew: Monitor<Crew>) {
    guard
      crew.withLock({ crew in
        guard !crew.rest.isEmpty else { return false }
        crew.active += 1
        return true
      })
    else { return }
    let buffer = AlignedBuffer(count: Int(min(device.clusterBytes, Device.copyBytes)))
    var owners = LowerOwners(
      below: device.chain.level(of: source.number) ?? 0, of: device.chain)
    var cursor = DeltaHashes.Cursor()
    while let cluster = crew.withLock({ $0.failure == nil ? $0.rest.popFirst() : nil }) {
      do throws(DeviceError) {
        let done = try move(cluster, buffer, &owners, &cursor)
        crew.withLock { $0.progress += done }
      } catch {
        crew.withLock { crew in
          crew.failed.append(cluster)
          crew.failure = crew.failure ?? error
        }
      }
    }
    crew.update { $0.active -= 1 }
  }

  /// Moves one cluster, inside the gate and with its lock, as a guest's write would.
  private func move(
    _ cluster: UInt64, _ buffer: AlignedBuffer, _ owners: inout LowerOwners,
    _ cursor: inout DeltaHashes.Cursor
  ) throws(DeviceError) -> Progress {
    let pass = try device.admitted()
    defer { device.gate.leave(pass) }
    try device.condition.requireWritable()
    device.locks.lock(cluster)
    defer { device.locks.unlock(cluster) }
    var progress = Progress()
    progress.clusters = 1
    guard let physical = try receiver.wanted(cluster, of: source) else {
      progress.overtaken = 1
      return progress
    }
    let content = MergeContent(
      file: source.file, offset: physical << device.clusterShift,
      count: device.clusterBytes)
    try hashes?.require(cluster, content, buffer, &cursor)
    let isZero = try content.isZero(buffer)
    if isZero, try !owners.own(cluster) {
      try receiver.drop(cluster)
      progress.dropped = 1
      progress.readBytes = content.readBytes(isZero: true)
      return progress
    }
    try receiver.place(cluster, source) { (writing, allocation, base) throws(DeviceError) in
      guard isZero else {
        try content.copy(to: writing.file, at: base, buffer, sharing: device.sharing)
        return writing.file.beginWriteback(offset: base, length: content.count)
      }
      guard !allocation.isZero else { return }
      try device.zero(writing, offset: base, length: content.count, keepSpace: false)
    }
    progress.copied = 1
    progress.readBytes = content.readBytes(isZero: isZero)
    return progress
  }
}
