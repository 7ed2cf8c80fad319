package import PloopFormat
package import PloopIO
internal import Synchronization

/// One disk: a chain of deltas and everything done to it. It knows no names, jobs or protocols.
///
/// Any thread may call any method; those named `…Now` never wait, all others may. Requests are in
/// `Requests/`, opening and closing in `Device+Attach.swift` and `Device+Detach.swift`, the rules
/// that make it safe in docs/crash-safety.md and docs/locking.md.
package final class Device: Sendable {
  package let isReadOnly: Bool
  /// What safe repair did when the disk was attached, in words.
  package let repairs: [String]

  /// log2 of the cluster size, and bytes of a cluster: the same for good, as the size is not.
  let clusterShift: UInt64
  let clusterBytes: UInt64
  let map: PagedMap
  let gate: Gate
  let locks = ClusterLocks()
  let moving = MovingClusters()
  let condition: Condition
  let counters = Statistics()
  let streams = StreamDetector()
  /// Whether pages are lent; not any more once some could not be read.
  let lendsPages = Atomic<Bool>(true)
  /// Held as long as the disk is attached.
  let descriptorLocks: Locked<[DescriptorLock]>
  /// Lower deltas that could not be closed when they became that.
  let unclosed = Locked<[Writing]>([])
  /// Held while those are closed.
  let freezing = Locked(())
  /// Who hears of changes; replaced while the gate is closed.
  let recorders: Replaceable<RecorderList>
  /// Why the syncs of lower deltas failed, of those that did: they are read, and not written any more.
  let unsynced = Locked<[FileIdentity: String]>([:])
  /// Hashes of lower deltas that were asked for, by the deltas' numbers; nil for those that have none.
  let knownHashes = Locked<[Int: DeltaHashes?]>([:])
  /// Replaced, by whoever holds ``checkpointing``, when the disk is made larger.
  private let checkpointRecorder: Locked<CheckpointRecorder?>
  /// Held by whoever replaces the file of checkpoints.
  let checkpointing = Locked(())
  /// Whether checkpoints are written into the image when it is closed.
  let keepsBitmapsInImage: Bool
  /// Where the check of the index, and the count behind it, may still wait for their turn.
  let checks: CheckQueue
  let sharing: SharingBounds
  private let chains: Replaceable<DeltaChain>
  let suspension = Suspension()

  init(
    chain: DeltaChain, map: PagedMap, gate: Gate, condition: Condition,
    readonly: Bool, repairs: [String], descriptorLocks: [DescriptorLock],
    recorder: CheckpointRecorder?, keepsBitmapsInImage: Bool, checks: CheckQueue,
    sharing: SharingBounds
  ) {
    checkpointRecorder = Locked(recorder)
    self.keepsBitmapsInImage = keepsBitmapsInImage
    self.checks = checks
    self.sharing = sharing
    clusterShift = UInt64(chain.geometry.clusterShift)
    clusterBytes = chain.geometry.clusterBytes
    self.map = map
    self.gate = gate
    self.condition = condition
    self.repairs = repairs
    isReadOnly = readonly
    self.descriptorLocks = Locked(descriptorLocks)
    chains = Replaceable(chain)
    let isRecording = !readonly && recorder?.isNeeded == true
    recorders = Replaceable(RecorderList(isRecording ? [recorder].compactMap { $0 } : []))
  }

  /// Nil for a disk that is too large to have checkpoints.
  var recorder: CheckpointRecorder? {
    get { checkpointRecorder.withLock { $0 } }
    set { checkpointRecorder.withLock { $0 = newValue } }
  }

  /// The chain as it is now. A request that is inside the gate keeps it from changing.
  var chain: DeltaChain { chains.current }

  /// Of the disk as it is now; it may grow.
  package var geometry: Geometry { chain.geometry }

  /// Runs `body` with the chain, for requests inside the gate that count no references.
  @inline(__always)
  func withChain<Result>(_ body: (DeltaChain) -> Result) -> Result { chains.use(body) }

  /// Why writes and flushes fail, if they do; reads go on.
  package var failure: String? { condition.failure }

  /// Whether the check of the index behind the attach has ended, if there is one: until then all wait who want to
  /// change the disk.
  package var isChecked: Bool { condition.isChecked }

  /// For who is about to close the disk: nobody waits for the check any more, and nobody may write. Never waits: a check
  /// that has read everything ends by itself.
  package func giveUpCheck() {
    condition.giveUpUnread()
    if condition.isGivenUp { checks.remove(self) }
  }

  /// Keeps a lock for as long as the disk is attached: of a descriptor that it did not have before.
  package func hold(_ lock: DescriptorLock) { descriptorLocks.withLock { $0.append(lock) } }

  // MARK: Suspending

  /// Admits no request any more, waits until those inside have left, and flushes: what the disk holds
  /// is in its files then, durably, data and index.
  ///
  /// - Throws: with everything as it was; `.timeout` when requests do not leave in time, or what
  ///   flushing has failed with. A disk that takes no more writes (``failure``) is suspended all the
  ///   same: there is nothing left that could be flushed.
  package func suspend(until deadline: Deadline) throws(DeviceError) {
    // What the check does to the file is done before.
    try requireChecked(until: deadline)
    try halt(until: deadline) { () throws(DeviceError) in
      guard failure == nil else { return }
      try chain.writing?.index.flush()
    }
  }

  /// Suspends without flushing, for who closes the disk, or flushes it later (``settle()``).
  package func quiesce(until deadline: Deadline) throws(DeviceError) {
    try halt(until: deadline) { () throws(DeviceError) in }
  }

  /// Suspends for good: nobody resumes the disk any more, or changes anything of it.
  func beginClosing(until deadline: Deadline) throws(DeviceError) {
    try halt(until: deadline, forGood: true) { () throws(DeviceError) in }
  }

  /// Makes durable what a disk holds that was suspended without that.
  package func settle() throws(DeviceError) {
    condition.awaitCheck()
    try suspension.withLock { isSuspended throws(DeviceError) in
      guard isSuspended, failure == nil else { return }
      try chain.writing?.index.flush()
    }
  }

  /// - Parameters:
  ///   - forGood: whether the disk is being closed from then on.
  ///   - body: what is done when everybody has left, before the disk counts as suspended.
  private func halt(
    until deadline: Deadline, forGood: Bool = false, _ body: () throws(DeviceError) -> Void
  ) throws(DeviceError) {
    try suspension.withLock { isSuspended throws(DeviceError) in
      guard !isSuspended else {
        if forGood { suspension.close() }
        return
      }
      suspension.foretell()
      guard gate.close(until: deadline) else { throw Device.inFlight }
      do throws(DeviceError) { try body() } catch {
        gate.open()
        throw error
      }
      isSuspended = true
      if forGood { suspension.close() }
    }
  }

  /// Waits for the check of the index, if there is one: before anything is locked, or written, that others would have to
  /// wait for as well.
  ///
  /// - Throws: `.timeout`; `.detached` where the check was given up, since the disk is closed.
  package func requireChecked(until deadline: Deadline) throws(DeviceError) {
    guard condition.awaitCheck(until: deadline) else {
      throw DeviceError(.timeout, "the check of the index did not end in time; nothing was changed")
    }
    guard !condition.isGivenUp else { throw Device.isClosing }
  }

  static var isClosing: DeviceError { DeviceError(.detached, "the disk is being detached") }

  private static var inFlight: DeviceError {
    DeviceError(.timeout, "requests in flight did not end in time; nothing was changed")
  }

  package func resume() {
    suspension.withLock { isSuspended in
      guard isSuspended, !suspension.isClosing else { return }
      isSuspended = false
      gate.open()
    }
  }

  package var isSuspended: Bool { suspension.isSuspended }

  // MARK: Changing the chain

  /// Puts another chain in the place of the present one while no request is inside. Requests wait
  /// meanwhile, none fails; a suspended disk stays so.
  ///
  /// - Parameters:
  ///   - body: makes the new chain, when everybody has left. If it throws, the old one stays.
  ///   - repointing: has the pages of the map that are in memory say what the files of the new chain say. Whatever
  ///     is read by then comes from those (docs/locking.md, "Pages of maps").
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: `.timeout`, with everything as it was, when requests in flight do not end in time.
  func change(
    until deadline: Deadline, _ body: (DeltaChain) throws(DeviceError) -> DeltaChain,
    repointing: () -> Void = {}
  ) throws(DeviceError) -> UInt64 {
    try requireChecked(until: deadline)
    return try whileClosed(until: deadline) { () throws(DeviceError) in
      chains.replace(with: try body(chain))
      map.follow(chain.deltas, chain.geometry, isWritten: chain.writing != nil)
      repointing()
      assert(map.names(only: chain.deltas.map(\.number)), "an entry names a delta that is gone")
      forgetHashes()
    }
  }

  /// Runs `body` while no request is inside the gate, and counts the pause; a suspended disk stays so.
  /// Requests in flight may be slow: others do not wait for them (``Gate/closeGently(until:failed:)``).
  ///
  /// - Returns: nanoseconds for which requests had to wait, at most.
  /// - Throws: `.timeout`, with nothing done, when requests in flight do not end in time; `.detached` for a disk that
  ///   is being closed.
  func whileClosed(
    until deadline: Deadline, _ body: () throws(DeviceError) -> Void
  ) throws(DeviceError) -> UInt64 {
    try suspension.withLock { isSuspended throws(DeviceError) in
      guard !suspension.isClosing else { throw Device.isClosing }
      var longest: UInt64 = 0
      let start =
        isSuspended
        ? monotonicNanoseconds()
        : gate.closeGently(until: deadline) { nanoseconds in
          counters.countPause(nanoseconds: nanoseconds)
          longest = max(longest, nanoseconds)
        }
      guard let start else { throw Device.inFlight }
      defer {
        if !isSuspended { gate.open() }
        counters.countPause(nanoseconds: monotonicNanoseconds() - start)
      }
      try body()
      return max(longest, monotonicNanoseconds() - start)
    }
  }

  // MARK: Facts

  package struct LevelStatus: Sendable {
    package var path: String
    package var isRaw: Bool
    package var isReadOnly: Bool
    package var mappedClusters: UInt64
    package var fileBytes: UInt64
    package var diskBytes: UInt64
  }

  /// The deltas, oldest to newest. Sizes that cannot be read are 0.
  package func levels() -> [LevelStatus] { levels(of: chain) }

  func levels(of chain: DeltaChain) -> [LevelStatus] {
    chain.deltas.enumerated().map { level, delta in
      let isTop = level == chain.topLevel
      return LevelStatus(
        path: delta.file.path, isRaw: delta.isRaw, isReadOnly: isReadOnly || !isTop,
        mappedClusters: isTop
          ? chain.writing?.allocator.dataClusters ?? delta.mappedNow : delta.mappedNow,
        fileBytes: (try? delta.file.size()) ?? 0, diskBytes: (try? delta.file.allocatedBytes()) ?? 0
      )
    }
  }

  /// The same of an image that is no part of an attached chain.
  ///
  /// - Parameter geometry: of its disk.
  package static func status(
    of image: (file: ImageFile, isRaw: Bool), like geometry: Geometry
  ) throws(DeviceError) -> LevelStatus {
    let mapped = try DeltaMerge.clusters(of: image, like: geometry)
    return try converting { () throws(IOError) in
      LevelStatus(
        path: image.file.path, isRaw: image.isRaw, isReadOnly: true, mappedClusters: mapped,
        fileBytes: try image.file.size(), diskBytes: try image.file.allocatedBytes())
    }
  }

  /// Logical clusters that some delta maps: as far as they have been counted, behind the check of the index.
  package var mappedClusters: UInt64 { map.mappedCount }

  /// The file system that the top lies on, as a number.
  package var filesystem: UInt64 { chain.top.file.identity.device }

  /// The room where the delta at a level lies, by default the top; nil when that cannot be told.
  package func space(level: Int? = nil) -> FilesystemSpace? {
    let chain = self.chain
    guard let level else { return try? chain.top.file.space() }
    return chain.deltas.indices.contains(level) ? try? chain.deltas[level].file.space() : nil
  }

  /// Clusters inside the top's file that nothing references.
  package var holesInTop: UInt64 { chain.writing?.allocator.holes ?? 0 }

  package func statistics() -> Statistics.Values { counters.values(inFlight: gate.occupancy) }
}
