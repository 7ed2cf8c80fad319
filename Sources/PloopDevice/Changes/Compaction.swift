internal import PloopFormat
package import PloopIO

/// Makes the file of the top smaller, or puts it in order, while guests use the disk. What the disk holds
/// stays as it is.
///
/// The order (docs/crash-safety.md, "A smaller file"): what is all zero is forgotten; what lies at the end is
/// copied to free places before it, durably, before anybody finds it there; the file is cut where nothing is
/// left; what nothing references is punched. There is nothing to undo at any moment, and one that was
/// interrupted is begun again. One thread at a time calls the methods, and nobody else changes the chain
/// meanwhile.
package final class Compaction: Sendable {
  /// What is done, in this order.
  package enum Part: String, CaseIterable, Sendable {
    /// Clusters that are all zero are dropped; those that a delta beneath has keep their place, without blocks.
    case zeroes
    /// The clusters come to lie in the order of the disk.
    case defragment
    /// What lies at the end of the file goes to where nothing is, and the file is cut.
    case shrink
    /// What nothing references is given back to the file system.
    case holes
  }

  package struct Progress: Equatable, Sendable {
    /// Clusters that were dealt with, and bytes that were read of them.
    package var clusters: UInt64 = 0
    package var readBytes: UInt64 = 0
    /// Clusters that have another place.
    package var copied: UInt64 = 0
    /// Clusters that were all zero, and have none any more, or no blocks.
    package var dropped: UInt64 = 0
    /// Clusters that nothing references, and that were punched.
    package var punched: UInt64 = 0

    package init() {}

    package static func += (left: inout Progress, right: Progress) {
      left.clusters += right.clusters
      left.readBytes += right.readBytes
      left.copied += right.copied
      left.dropped += right.dropped
      left.punched += right.punched
    }
  }

  /// One part, from where it is.
  protocol Work: AnyObject {
    /// Clusters that it will deal with, as it looks at the beginning.
    var totalClusters: UInt64 { get }
    /// - Returns: nil when nothing is left.
    func step(limit: Int, until deadline: Deadline) throws(DeviceError) -> Progress?
  }

  private struct State {
    var rest: ArraySlice<Part>
    var work: (any Work)?
  }

  let mover: ClusterMover
  private let state: Locked<State>

  /// - Throws: `.readOnly`, and what keeps the disk from being written.
  package init(of device: Device, _ parts: Set<Part>) throws(DeviceError) {
    guard let writing = device.chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    try device.condition.requireWritable()
    mover = ClusterMover(device, writing)
    state = Locked(State(rest: Part.allCases.filter { parts.contains($0) }[...]))
  }

  /// The most that one step takes, in bytes; and the file, with the room around it.
  package var batchBytes: UInt64 { max(mover.device.clusterBytes, ClusterMover.batchBytes) }
  package var path: String { mover.writing.file.path }
  package var space: FilesystemSpace? { mover.device.space() }

  /// Bytes of the file, and those of them that take blocks.
  package var fileBytes: UInt64 { (try? mover.writing.file.size()) ?? 0 }
  package var diskBytes: UInt64 { (try? mover.writing.file.allocatedBytes()) ?? 0 }

  /// Begins the next part.
  ///
  /// - Returns: the part, and how many clusters it has to do with; nil when none is left.
  package func begin(
    until deadline: Deadline
  ) throws(DeviceError) -> (part: Part, clusters: UInt64)? {
    // What guests and the last part have given back is free, and punched.
    try mover.settle(0..<UInt64.max, until: deadline)
    guard let part = state.withLock({ $0.rest.first }) else { return nil }
    let work: any Work =
      switch part {
      case .zeroes: ZeroDropping(mover)
      case .defragment: try Ordering(mover)
      case .shrink: try Shrinking(mover)
      case .holes: Punching(mover)
      }
    state.withLock { state in
      state.rest = state.rest.dropFirst()
      state.work = work
    }
    return (part, work.totalClusters)
  }

  /// Goes on with the part.
  ///
  /// - Parameter limit: clusters that are dealt with.
  /// - Returns: nil when it is over.
  /// - Throws: `.outOfSpace`, `.timeout` and others, with what was not done as it was; the step may be tried
  ///   again.
  package func step(limit: Int, until deadline: Deadline) throws(DeviceError) -> Progress? {
    try state.withLock { state throws(DeviceError) in
      try state.work?.step(limit: limit, until: deadline)
    }
  }

  /// What there is to gain in the top of a disk: clusters that nothing references and that may take blocks,
  /// bytes at the end of its file, and how many of its clusters do not lie behind the one before.
  package static func outlook(
    of device: Device
  ) throws(DeviceError) -> (idle: UInt64, tailBytes: UInt64, breaks: UInt64) {
    guard let writing = device.chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    let allocator = writing.allocator
    let breaks = try ClusterMover(device, writing).breaks()
    // As it would be once what lies at the end had found places before it.
    let length = allocator.usedClusters.count
    let dense = min(Int(clamping: allocator.denseClusters), length)
    return (
      allocator.idle, UInt64(length - dense) << device.clusterShift + allocator.tailBytes, breaks
    )
  }
}

extension ClusterMover {
  /// Clusters of the top in the order of the disk, those from `first` on.
  func clusters(
    from first: UInt64, limit: Int
  ) throws(DeviceError) -> (found: [UInt64], next: UInt64) {
    let count = device.geometry.clusterCount
    var found: [UInt64] = []
    var cluster = first
    var places = device.map.walk()
    while cluster < count, found.count < limit {
      let run = try places.run(from: cluster, limit: count - cluster)
      let taken = min(
        run.count, run.place?.delta == writing.number ? UInt64(limit - found.count) : .max)
      if run.place?.delta == writing.number { found += cluster..<cluster + taken }
      cluster += taken
    }
    return (found, cluster)
  }

  /// How many clusters of the top do not lie behind the one before.
  func breaks() throws(DeviceError) -> UInt64 {
    var breaks: UInt64 = 0
    var next: UInt64?
    try device.map.forEach { _, place in
      guard place.delta == writing.number else { return }
      if let next, next != place.physical { breaks += 1 }
      next = place.physical + 1
    }
    return breaks
  }
}
