internal import PloopFormat
internal import PloopIO

/// Makes the checksums of a disk's lower deltas, or holds the deltas against those that there are, step by
/// step, while guests use the disk. Of a disk that nobody writes the top is among them.
///
/// One thread at a time calls the methods. Nobody else changes the disk's chain meanwhile.
package final class HashRun {
  package enum Outcome: String, Sendable {
    case hashed, verified, damaged
    /// Somebody has changed the file meanwhile: there are no sums of it.
    case changed
  }

  package struct Level: Sendable {
    package let path: String
    package var outcome: Outcome
    package var clusters: UInt64 = 0
    /// Clusters of the disk that are not what they were; no more than ``damagedKept``.
    package var damaged: [UInt64] = []
    package var damagedCount: UInt64 = 0
    /// Clusters of which the hashes say nothing: they are damaged themselves.
    package var unknownCount: UInt64 = 0
  }

  package static let damagedKept = 1_000
  /// Of the file with its hashes, behind the name of a delta.
  package static let fileSuffix = HashFile.suffix

  private let device: Device
  private let deltas: [Delta]
  private let geometry: Geometry
  private let buffer: AlignedBuffer
  private var current: Work?
  /// What has been done, oldest first.
  package private(set) var levels: [Level] = []
  package let totalClusters: UInt64
  package var totalBytes: UInt64 { totalClusters << device.clusterShift }

  /// A delta that is being looked at.
  private struct Work {
    let delta: Delta
    let index: ClusterMap
    let subject: HashFile.Subject
    /// Nil where sums are made.
    let hashes: DeltaHashes?
    let draft: HashFile.Draft?
    /// The page of sums that is being made.
    let page = AlignedBuffer(count: Geometry.pageBytes).region
    var cursor = DeltaHashes.Cursor()
    var next: UInt64 = 0
    var level: Level
  }

  /// - Throws: what has kept the delta below the top from being made durable.
  package init(of device: Device) throws(DeviceError) {
    let chain = device.chain
    try chain.writing?.index.awaitBelow()
    self.device = device
    geometry = chain.geometry
    deltas = chain.deltas.filter { $0.number != chain.writing?.number }
    buffer = AlignedBuffer(count: Int(min(device.clusterBytes, Device.copyBytes)))
    totalClusters = deltas.reduce(0) { $0 + $1.mappedNow }
  }

  /// Looks at some clusters.
  ///
  /// - Parameter limitBytes: read at most, but one cluster at least.
  /// - Returns: clusters that were read; nil when there is nothing left.
  /// - Throws: `.io`, `.outOfSpace`; `.format` for an index that cannot be followed.
  package func step(limitBytes: UInt64) throws(DeviceError) -> UInt64? {
    if current == nil { current = try begin() }
    guard var work = current else { return nil }
    let count = work.index.geometry.clusterCount
    guard work.next < count else {
      current = nil
      try end(work)
      return 0
    }
    let limit = max(1, limitBytes >> device.clusterShift)
    var read: UInt64 = 0
    do throws(DeviceError) {
      while work.next < count, read < limit {
        if work.hashes == nil, work.index[work.next] == nil {
          work.next += work.index.run(from: work.next, limit: pageEnd(work) - work.next).count
        } else {
          if try look(at: work.next, &work) { read += 1 }
          work.next += 1
        }
        if work.next % HashFile.sumsPerPage == 0 || work.next == count { try keep(work) }
      }
    } catch {
      abandon()
      throw error
    }
    work.level.clusters += read
    current = work
    return read
  }

  /// The cluster behind those whose sums are on the page of the next one.
  private func pageEnd(_ work: Work) -> UInt64 {
    min(
      (work.next / HashFile.sumsPerPage + 1) * HashFile.sumsPerPage,
      work.index.geometry.clusterCount)
  }

  /// The page of the clusters before the next one is whole. Where nothing is mapped it stays a hole.
  private func keep(_ work: Work) throws(DeviceError) {
    guard let draft = work.draft, !work.page.isZero else { return }
    try draft.write(work.page, number: (work.next - 1) / HashFile.sumsPerPage)
    work.page.zero()
  }

  /// Removes what is half made.
  package func abandon() {
    current?.draft?.discard()
    current = nil
  }

  private func begin() throws(DeviceError) -> Work? {
    guard levels.count < deltas.count else { return nil }
    let delta = deltas[levels.count]
    let own = DeltaHashes.geometry(of: delta, like: geometry)
    let index = ClusterMap(own)
    let hashes = try DeltaHashes.of(delta, like: geometry)
    // So that what is read comes from the disk, which is what may have changed.
    delta.file.dropFromPageCache()
    _ = try DeltaClusters.load(delta, into: index)
    let work = Work(
      delta: delta, index: index,
      subject: try HashFile.Subject(delta.file, isRaw: delta.isRaw, own), hashes: hashes,
      draft: hashes == nil ? try HashFile.Draft(beside: delta.source) : nil,
      level: Level(path: delta.file.path, outcome: hashes == nil ? .hashed : .verified))
    current = work
    return work
  }

  private func end(_ work: Work) throws(DeviceError) {
    var level = work.level
    do throws(DeviceError) {
      let now = try HashFile.Subject(
        work.delta.file, isRaw: work.delta.isRaw, work.index.geometry)
      if now != work.subject {
        work.draft?.discard()
        level.outcome = .changed
      } else if let draft = work.draft {
        try draft.publish(of: now)
        device.forgetHashes()
      } else if level.damagedCount > 0 {
        level.outcome = .damaged
      }
    } catch {
      work.draft?.discard()
      throw error
    }
    levels.append(level)
  }

  private func content(of place: Place, in work: Work) -> MergeContent {
    MergeContent(
      file: work.delta.file, offset: place.physical << device.clusterShift,
      count: device.clusterBytes)
  }

  /// - Returns: whether it was read.
  private func look(at cluster: UInt64, _ work: inout Work) throws(DeviceError) -> Bool {
    let place = work.index[cluster]
    let content = place.map { self.content(of: $0, in: work) }
    guard let hashes = work.hashes else {
      guard let content else { return false }
      work.page.setLittleEndian(
        HashFile.sum(try content.checksum(buffer)), at: Int(cluster % HashFile.sumsPerPage) * 4)
      return true
    }
    var isSound = true
    if let content {
      let finding = try hashes.judge(cluster, content, buffer, &work.cursor)
      isSound = finding != .differs
      if finding == .unknown { work.level.unknownCount += 1 }
    } else if let sum = try hashes.sum(of: cluster, &work.cursor) {
      // What had a place has lost it.
      isSound = sum == 0
    }
    if !isSound {
      work.level.damagedCount += 1
      if work.level.damaged.count < HashRun.damagedKept { work.level.damaged.append(cluster) }
    }
    return content != nil
  }
}
