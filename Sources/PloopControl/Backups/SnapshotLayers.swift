internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Which files a state of a disk consists of, each with the snapshot that ends with it: a state that was copied is
/// known by them again. A name alone may have been given to another state since.
struct SnapshotLayers: Sendable {
  private let shots: [GUID]
  /// As ``Device/fileDigests()``.
  private let files: [String]

  /// - Parameter shots: the names of the device's files, oldest first. Of a disk that is written a snapshot may have
  ///   made one more of them than there were a moment ago: both are the same up to the lesser count.
  init(_ device: Device, _ shots: [GUID]) throws(ServiceError) {
    self.shots = shots
    files = try converting { () throws(DeviceError) in try device.fileDigests() }
  }

  init(_ snapshot: OpenSnapshot) throws(ServiceError) {
    try self.init(snapshot.device, snapshot.shots)
  }

  /// Which file a snapshot ends with, 0 the oldest; nil for one that is none of them.
  func level(of snapshot: GUID) -> Int? {
    guard let level = shots.firstIndex(of: snapshot), level < files.count else { return nil }
    return level
  }

  /// A digest of all files up to that of a snapshot, and of what they are called.
  func digest(of snapshot: GUID) -> String? {
    guard let level = level(of: snapshot) else { return nil }
    let lines = zip(shots, files).prefix(level + 1).map { "\($0) \($1)\n" }
    return SHA256.hexDigest(Array(lines.joined().utf8))
  }
}

/// A disk that is attached, and what it builds on.
struct LiveDisk: Sendable {
  let device: Device
  /// Oldest first, the top's own name last; fewer than it has files where it has no descriptor.
  let shots: [GUID]

  init(_ controller: DeviceController) throws(ServiceError) {
    device = try controller.device()
    shots = LiveDisk.shots(controller.now.record)
  }

  private static func shots(_ record: DeviceRecord?) -> [GUID] {
    (record?.deltas ?? []).compactMap { $0.guid.flatMap { GUID($0) } }
  }

  /// The newest snapshot beneath a disk: `GUID.none` where there is none, nil where there can be none.
  static func newestSnapshot(_ record: DeviceRecord) -> GUID? {
    guard record.descriptor != nil else { return nil }
    return shots(record).dropLast().last ?? GUID.none
  }
}

/// What a backup is of.
enum BackupSubject {
  case live(LiveDisk)
  /// - Parameter disk: on which it was made; nil where that cannot be asked.
  case snapshot(OpenSnapshot, of: LiveDisk?)
}
