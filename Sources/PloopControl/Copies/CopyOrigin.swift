internal import PloopFormat

/// What is copied to make a disk, or a file, of it.
enum CopyOrigin: Equatable, Sendable {
  /// A device, as it is at one instant, or a snapshot of it.
  case device(String, snapshot: GUID?)
  /// A point of a backup, on a target.
  case backup(String, on: String)
  case image(OriginImage)
  /// What an NBD server exports, as a disk whose clusters have so many bytes.
  case nbd(uri: String, clusterShift: Int)

  static let clusterShiftDefault = 20

  /// Takes the members `device` and `snapshot`, or `from`, of a job's parameters.
  ///
  /// - Parameter device: that the request names beside its type.
  init(_ parameters: inout JobParameters, device: String?) throws(ServiceError) {
    guard let from = try parameters.object("from") else {
      guard let device else { throw parameters.wrong("from", "is missing, and so is a device") }
      self = .device(device, snapshot: try parameters.guid("snapshot"))
      return
    }
    var fields = from
    if let target = try fields.text("target") {
      self = .backup(try fields.requiredText("backup"), on: target)
    } else if let path = try fields.text("image") {
      self = .image(try OriginImage(path, &fields))
    } else if let uri = try fields.text("nbd") {
      self = .nbd(uri: uri, clusterShift: try fields.clusterShift())
    } else {
      throw fields.wrong("image", "one of target, image and nbd is expected")
    }
    try fields.finish()
  }

  /// Whether a job's parameters leave what is copied to its device.
  static func isDevice(_ parameters: [String: JobValue]) -> Bool { parameters["from"] == nil }

  /// Whether what is copied is over as soon as nobody copies it.
  var isInstant: Bool {
    guard case .device(_, nil) = self else { return false }
    return true
  }

  /// The parameters that say the same.
  var values: [String: JobValue] {
    switch self {
    case .device(_, let snapshot):
      return snapshot.map { ["snapshot": .text($0.description)] } ?? [:]
    case .backup(let backup, let target):
      return ["from": .object(["target": .text(target), "backup": .text(backup)])]
    case .image(let image): return ["from": .object(image.values)]
    case .nbd(let uri, let shift):
      return ["from": .object(["nbd": .text(uri), "cluster_size": .number(1 << UInt64(shift))])]
    }
  }

  /// What it is called in a log.
  var words: String {
    switch self {
    case .device(let id, nil): "the device \(id)"
    case .device(let id, let snapshot?): "the snapshot \(snapshot) of the device \(id)"
    case .backup(let id, let target): "the backup \(id) of the target \(target)"
    case .image(let image): image.path
    case .nbd(let uri, _): uri
    }
  }
}

/// A file beneath a root that holds a disk.
struct OriginImage: Equatable, Sendable {
  enum Format: String, Sendable {
    case raw, qcow2
    case ploop = "ploop1"
  }

  /// `root:relative`; of an image, or of the descriptor of a disk.
  var path: String
  /// Nil where the file says it: what is raw may begin with anything, so it says nothing.
  var format: Format?
  /// Of a disk by its descriptor; nil for the top.
  var snapshot: GUID?
  /// Bytes of a cluster of what has none, as a power of two.
  var clusterShift = CopyOrigin.clusterShiftDefault

  fileprivate init(_ path: String, _ fields: inout JobParameters) throws(ServiceError) {
    self.path = path
    if let text = try fields.text("format") {
      guard let format = Format(rawValue: text) else {
        throw fields.wrong("format", "raw, ploop1 or qcow2 is expected")
      }
      self.format = format
    }
    snapshot = try fields.guid("snapshot")
    clusterShift = try fields.clusterShift()
  }

  fileprivate var values: [String: JobValue] {
    var values = ["image": JobValue.text(path)]
    values["format"] = format.map { .text($0.rawValue) }
    values["snapshot"] = snapshot.map { .text($0.description) }
    values["cluster_size"] = .number(1 << UInt64(clusterShift))
    return values
  }
}

extension JobParameters {
  fileprivate mutating func clusterShift() throws(ServiceError) -> Int {
    guard let bytes = try number("cluster_size") else { return CopyOrigin.clusterShiftDefault }
    let shift = bytes.trailingZeroBitCount
    guard bytes.nonzeroBitCount == 1, Geometry.clusterShifts.contains(shift) else {
      throw wrong("cluster_size", "a power of two from 4096 to 67108864 is expected")
    }
    return shift
  }
}
