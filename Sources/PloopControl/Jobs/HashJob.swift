internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// The SHA-256 of everything that a disk holds, as a reader of its export would compute it; or, with `what`
/// deltas, the checksums of its read-only deltas (``DeltaHashing``).
///
/// Guests go on writing, so each step is of its own moment: the hash of a disk that is written
/// meanwhile is of no single one. What was hashed is not kept, so after a crash it begins anew.
struct HashJob: JobWork {
  static let type = "hash"
  static let phases = ["reading"]
  static let isResumable = false

  private static let stepBytes = 1 << 20
  /// Every second one may be a hole, and a list of holes has room for so many.
  private static let stepClusters = 2 * HoleList.capacity
  /// How far it is is written down so often.
  private static let tellNanoseconds: UInt64 = 1_000_000_000

  private enum What: String { case disk, deltas }

  private let device: String
  private let what: What

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {
    self.device = device
    var parameters = JobParameters(parameters)
    let word = try parameters.text("what") ?? What.disk.rawValue
    guard let what = What(rawValue: word) else {
      throw parameters.wrong("what", "disk or deltas is expected")
    }
    self.what = what
    try parameters.finish()
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    what == .disk ? [:] : ["what": .text(what.rawValue)]
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let disk = try service.controller(device).device()
    if what == .deltas { return try DeltaHashing(disk).plan }
    return JobPlan(
      clusters: disk.mappedClusters, bytes: HashJob.mappedBytes(of: disk), requiredBytes: 0)
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let disk = try failing { () throws(ServiceError) in
      try service.controller(device).device()
    }
    if what == .deltas {
      control.enter(phase: HashJob.phases[0])
      return try failing({ () throws(ServiceError) in try DeltaHashing(disk) }).run(control)
    }
    let geometry = disk.geometry
    let clusterShift = UInt64(geometry.clusterShift)
    control.enter(phase: HashJob.phases[0])
    control.total(clusters: geometry.clusterCount, bytes: geometry.sizeBytes)
    control.log("\(geometry.sizeBytes) bytes to hash, from the start")
    let step = min(HashJob.stepBytes, HashJob.stepClusters << geometry.clusterShift)
    let buffer = AlignedBuffer(count: step)
    var hash = SHA256()
    var place: UInt64 = 0
    var bytesRead: UInt64 = 0
    var toldAt = monotonicNanoseconds()
    while place < geometry.sizeBytes {
      try control.checkpoint()
      let piece = buffer.region.slice(0, Int(min(UInt64(step), geometry.sizeBytes - place)))
      let read = try failing { () throws(ServiceError) in
        try HashJob.read(disk, into: piece, at: place)
      }
      hash.update(piece)
      bytesRead += read
      let next = place + UInt64(piece.count)
      let clusters =
        next == geometry.sizeBytes ? geometry.clusterCount : next >> clusterShift
      control.advance(
        clusters: clusters - place >> clusterShift, bytes: UInt64(piece.count),
        charging: ((read + geometry.clusterBytes - 1) >> clusterShift, read))
      place = next
      let now = monotonicNanoseconds()
      if now - toldAt >= HashJob.tellNanoseconds {
        control.persist()
        toldAt = now
      }
    }
    return [
      "sha256": .text(hash.hexDigest()), "bytes_read": .number(bytesRead),
      "mapped_bytes": .number(HashJob.mappedBytes(of: disk)),
    ]
  }

  /// - Returns: bytes that came from a file; the others are of no delta.
  private static func read(
    _ disk: Device, into piece: ByteRegion, at place: UInt64
  ) throws(ServiceError) -> UInt64 {
    var holes = HoleList()
    try converting { () throws(DeviceError) in
      try disk.read(into: piece, at: place, holes: &holes)
    }
    return UInt64(piece.count - holes.runs.map(\.count).reduce(0, +))
  }

  /// The last cluster of a disk may be no whole one.
  private static func mappedBytes(of disk: Device) -> UInt64 {
    min(disk.geometry.sizeBytes, disk.mappedClusters << UInt64(disk.geometry.clusterShift))
  }
}
