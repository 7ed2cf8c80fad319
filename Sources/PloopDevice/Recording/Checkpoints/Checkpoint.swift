package import PloopFormat
package import PloopIO

/// What was written to a disk since an instant, as long as the disk is attached.
package final class Checkpoint: Sendable {
  package let name: String
  /// Seconds since 1970.
  package let createdAt: Double
  package let granularityShift: Int
  /// The newest checkpoint that there was when this one was made.
  package let parent: String?
  /// The request that made it, if that can come again.
  package let request: String?
  private let bits: AtomicBits
  private let reason: Locked<String?>
  private let diskBytes: UInt64

  /// - Parameter stored: as the file has it; its bits are a part of those that count.
  init(_ stored: CheckpointFile.Checkpoint, diskBytes: UInt64) {
    name = stored.name
    createdAt = stored.createdAt
    granularityShift = stored.granularityShift
    parent = stored.parent
    request = stored.request
    self.diskBytes = diskBytes
    reason = Locked(stored.inconsistency)
    // Nobody asks for the bits of one that says nothing.
    let granularity = UInt64(1) << UInt64(stored.granularityShift)
    bits = AtomicBits(
      count: stored.inconsistency == nil ? Int((diskBytes - 1) / granularity + 1) : 0)
    bits.formUnion(stored.bits)
  }

  private init(_ other: Checkpoint, _ name: String, parent: String?) {
    self.name = name
    self.parent = parent
    createdAt = other.createdAt
    request = other.request
    granularityShift = other.granularityShift
    bits = other.bits
    reason = other.reason
    diskBytes = other.diskBytes
  }

  /// The same bitmap, with what is recorded in it from now on, under another name.
  ///
  /// - Parameters:
  ///   - old: the name that a checkpoint gives up for `new`; of any other it is the parent's.
  ///   - forgotten: what was the parent of the one that gets the name, if that one had it.
  func renamed(_ old: String, to new: String, forgetting forgotten: Checkpoint?) -> Checkpoint {
    var parent = self.parent
    if parent == forgotten?.name { parent = forgotten?.parent }
    if parent == old { parent = new }
    return Checkpoint(self, name == old ? new : name, parent: parent)
  }

  /// Why it says nothing, if it does not: all of the disk counts as written then.
  package var inconsistency: String? { reason.withLock { $0 } }

  package var granularityBytes: UInt64 { 1 << UInt64(granularityShift) }

  /// Bytes of the disk that may have been written; all of them if the bitmap says nothing.
  package var dirtyBytes: UInt64 {
    guard inconsistency == nil else { return diskBytes }
    let whole = UInt64(bits.setCount) << UInt64(granularityShift)
    guard bits.count > 0, bits[bits.count - 1] else { return whole }
    // The last bit may stand for less.
    let last = diskBytes - UInt64(bits.count - 1) << UInt64(granularityShift)
    return whole - granularityBytes + last
  }

  /// A piece of the disk, and whether it may have been written.
  package struct Run: Equatable, Sendable {
    package var length: UInt64
    package var isDirty: Bool
  }

  /// The range from its start on, at most `limit` runs of it.
  ///
  /// - Parameter range: bytes of the disk, not empty.
  package func runs(of range: Range<UInt64>, limit: Int) -> [Run] {
    guard inconsistency == nil else {
      return [Run(length: UInt64(range.count), isDirty: true)]
    }
    var runs: [Run] = []
    var offset = range.lowerBound
    while offset < range.upperBound, runs.count < limit {
      let bit = Int(offset >> UInt64(granularityShift))
      let end = min(UInt64(bits.endOfRun(from: bit)) << UInt64(granularityShift), range.upperBound)
      runs.append(Run(length: end - offset, isDirty: bits[bit]))
      offset = end
    }
    return runs
  }

  /// The clusters of the disk that may have been written, in part or whole.
  package func clusters(_ geometry: Geometry) -> Bitmap {
    var clusters = Bitmap(count: Int(geometry.clusterCount))
    var offset: UInt64 = 0
    for run in runs(of: 0..<geometry.sizeBytes, limit: .max) {
      if run.isDirty {
        let last = Int((offset + run.length - 1) >> UInt64(geometry.clusterShift))
        for cluster in Int(offset >> UInt64(geometry.clusterShift))...last {
          clusters[cluster] = true
        }
      }
      offset += run.length
    }
    return clusters
  }

  /// All bits: bit i is bit i % 8 of byte i / 8. Of one that says nothing, all are set.
  package var bytes: [UInt8] {
    guard inconsistency == nil else {
      let count = Int((diskBytes - 1) >> UInt64(granularityShift)) + 1
      let all = AtomicBits(count: count)
      all.set(0..<count)
      return all.bytes
    }
    return bits.bytes
  }

  @inline(__always)
  func record(_ range: Range<UInt64>) {
    guard bits.count > 0 else { return }
    let first = Int(range.lowerBound >> UInt64(granularityShift))
    bits.set(first..<Int((range.upperBound - 1) >> UInt64(granularityShift)) + 1)
  }

  /// The first reason stays.
  func spoil(_ words: String) { reason.withLock { $0 = $0 ?? words } }

  /// The same of a larger disk: what lies behind the old end counts as written.
  ///
  /// - Parameter hasRoom: whether a bitmap of that size is kept; one that is not says nothing.
  func grown(to bytes: UInt64, hasRoom: Bool) -> Checkpoint {
    var old = stored
    if !hasRoom {
      old.inconsistency = old.inconsistency ?? CheckpointFile.excess
      old.bits = []
    }
    let grown = Checkpoint(old, diskBytes: bytes)
    if grown.inconsistency == nil { grown.record(diskBytes..<bytes) }
    return grown
  }

  /// As it is to be in the file.
  var stored: CheckpointFile.Checkpoint {
    let reason = inconsistency
    return CheckpointFile.Checkpoint(
      name: name, createdAt: createdAt, granularityShift: granularityShift, parent: parent,
      inconsistency: reason, request: request, bits: reason == nil ? bits.bytes : [])
  }
}
