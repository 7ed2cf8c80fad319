package import PloopFormat
package import PloopIO

/// One disk: a chain of deltas and everything done to it. It knows no names, jobs or protocols.
///
/// Any thread may call any method; those named `…Now` never wait, all others may. Requests are in
/// `Requests/`, opening and closing in `Device+Attach.swift` and `Device+Detach.swift`, the rules
/// that make it safe in docs/crash-safety.md and docs/locking.md.
package final class Device: Sendable {
  package let geometry: Geometry
  package let isReadOnly: Bool
  /// What safe repair did when the disk was attached, in words.
  package let repairs: [String]

  /// Oldest to newest; the last is the top.
  let deltas: [Delta]
  /// The deltas' files, for reads that count no references.
  let files: FileTable
  let map: ClusterMap
  let gate: Gate
  let locks = ClusterLocks()
  let condition = Condition()
  let counters = Statistics()
  let streams = StreamDetector()
  /// Nil on a read-only disk.
  let writing: Writing?
  /// The same for writes in place, which count no references.
  let borrowedWriting: Borrowed<Writing>?
  /// Held as long as the disk is attached.
  let descriptorLocks: Locked<[DescriptorLock]>
  private let suspension = Locked(false)

  /// What only a disk that can be written has.
  final class Writing: Sendable {
    let file: ImageFile
    let allocator: ClusterAllocator
    let index: IndexWriter
    /// Whether space can be given back and ranges zeroed without writing them.
    let canPunch: Bool

    init(file: ImageFile, allocator: ClusterAllocator, index: IndexWriter, canPunch: Bool) {
      self.file = file
      self.allocator = allocator
      self.index = index
      self.canPunch = canPunch
    }
  }

  init(
    geometry: Geometry, deltas: [Delta], map: ClusterMap, topUse: Bitmap, readonly: Bool,
    canPunch: Bool, repairs: [String], descriptorLocks: [DescriptorLock]
  ) {
    self.geometry = geometry
    self.deltas = deltas
    files = FileTable(deltas.map(\.file))
    self.map = map
    self.repairs = repairs
    isReadOnly = readonly
    gate = Gate()
    self.descriptorLocks = Locked(descriptorLocks)
    if readonly {
      writing = nil
    } else {
      let file = deltas[deltas.count - 1].file
      file.expectRandomAccess()
      let allocator = ClusterAllocator(file: file, geometry: geometry, gate: gate, used: topUse)
      writing = Writing(
        file: file, allocator: allocator,
        index: IndexWriter(
          file: file, map: map, level: deltas.count - 1, allocator: allocator,
          condition: condition),
        canPunch: canPunch)
    }
    borrowedWriting = writing.map(Borrowed.init)
  }

  var topLevel: Int { deltas.count - 1 }

  /// Why writes and flushes fail, if they do; reads go on.
  package var failure: String? { condition.failure }

  // MARK: Suspending

  /// Admits no request any more and waits until those inside have left.
  ///
  /// - Throws: `.timeout`, with everything as it was, when they do not leave in time.
  package func suspend(until deadline: Deadline) throws(DeviceError) {
    try suspension.withLock { isSuspended throws(DeviceError) in
      guard !isSuspended else { return }
      guard gate.close(until: deadline) else {
        throw DeviceError(.timeout, "requests in flight did not end in time")
      }
      isSuspended = true
    }
  }

  package func resume() {
    suspension.withLock { isSuspended in
      guard isSuspended else { return }
      isSuspended = false
      gate.open()
    }
  }

  package var isSuspended: Bool { suspension.withLock { $0 } }

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
  package func levels() -> [LevelStatus] {
    deltas.enumerated().map { level, delta in
      let isTop = level == topLevel
      return LevelStatus(
        path: delta.file.path, isRaw: delta.isRaw, isReadOnly: isReadOnly || !isTop,
        mappedClusters: isTop
          ? writing?.allocator.dataClusters ?? delta.mappedAtAttach : delta.mappedAtAttach,
        fileBytes: (try? delta.file.size()) ?? 0, diskBytes: (try? delta.file.allocatedBytes()) ?? 0
      )
    }
  }

  /// Logical clusters that some delta maps.
  package var mappedClusters: UInt64 { map.mappedCount }

  /// Clusters inside the top's file that nothing references.
  package var holesInTop: UInt64 { writing?.allocator.holes ?? 0 }

  package func statistics() -> Statistics.Values { counters.values(inFlight: gate.occupancy) }
}
