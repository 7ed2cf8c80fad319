internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Where a disk is moved to.
enum MigrationDestination: Equatable, Sendable {
  /// What an NBD server exports, written over.
  case nbd(String, TargetTLS?)
  case peer(PeerDestination)
  /// Whoever listens there, and gives what comes to OpenVZ's `ploop copy -d`.
  case stream(String)

  private static let pointer = "/params/to"

  init(_ to: JobParameters) throws(ServiceError) {
    var to = to
    if let peer = try to.object("ploopd") {
      self = .peer(try PeerDestination(peer))
    } else if let address = try to.text("stream") {
      self = .stream(address)
    } else {
      self = .nbd(try to.requiredText("nbd"), try to.tls())
    }
    try to.finish()
  }

  /// The same, whatever roots there are later.
  func pinned(_ service: Service) throws(ServiceError) -> MigrationDestination {
    switch self {
    case .nbd(let uri, let tls):
      try service.requireAddress(uri, pointer: "\(Self.pointer)/nbd")
      return .nbd(
        uri, try service.canonical(tls, of: uri, pointer: "\(Self.pointer)/tls"))
    case .peer(let peer): return .peer(try peer.pinned(service))
    case .stream(let address):
      _ = try StreamPlace.connector(address, service)
      return self
    }
  }

  var value: JobValue {
    switch self {
    case .nbd(let uri, let tls):
      var members: [String: JobValue] = ["nbd": .text(uri)]
      members["tls"] = tls?.value
      return .object(members)
    case .peer(let peer): return .object(["ploopd": peer.value])
    case .stream(let address): return .object(["stream": .text(address)])
    }
  }

  /// - Parameters:
  ///   - device: that is moved.
  ///   - job: that moves it.
  func place(
    of device: String, for job: String, _ service: Service
  ) throws(ServiceError) -> any MigrationPlace {
    switch self {
    case .nbd(let uri, let tls): ExportPlaceToMove(uri, tls, service)
    case .peer(let peer): PeerPlace(peer, of: device, for: job, service)
    case .stream(let address): StreamPlace(address, service)
    }
  }
}

/// The other side of a disk that is moved.
protocol MigrationPlace: Sendable {
  /// What it is called by people.
  var words: String { get }
  /// What it gets: the disk, or the file of its top.
  var space: Tracker.Space { get }

  /// Connects to where the disk is copied to.
  ///
  /// - Parameter geometry: of the disk.
  /// - Returns: whether it reads as zero, too.
  /// - Throws: `target-unreachable` where that may pass.
  func open(for geometry: Geometry) throws(ServiceError) -> (export: any BlockExport, isBlank: Bool)

  /// The disk is the other side's from now on; it may be told again and again.
  func takeOver() throws(ServiceError)

  /// Nothing comes of it: what was made there goes, as far as it can be reached.
  func discard()
}

extension MigrationPlace {
  var space: Tracker.Space { .virtual }

  /// What is waited for where the other side fails; nil for what will not pass.
  func blocker(_ error: ServiceError) -> JobBlocker? {
    switch error.code {
    case .insufficientSpace: JobBlocker(kind: .space, id: nil, detail: error.detail)
    case .targetUnreachable: JobBlocker(kind: .target, id: words, detail: error.detail)
    default: nil
    }
  }
}

/// An export of any NBD server. Nobody has to be told that it is whole, and its bytes stay where they are.
private struct ExportPlaceToMove: MigrationPlace {
  let words: String
  private let tls: TargetTLS?
  private let service: Service

  init(_ uri: String, _ tls: TargetTLS?, _ service: Service) {
    words = uri
    self.tls = tls
    self.service = service
  }

  func open(
    for geometry: Geometry
  ) throws(ServiceError) -> (export: any BlockExport, isBlank: Bool) {
    let options = try service.nbdOptions(words, tls)
    return (
      try backingUp { () throws(BackupError) in try openExport(nbd: words, options) }, false
    )
  }

  func takeOver() {}
  func discard() {}
}

extension Service {
  /// - Throws: as for an export to the same place.
  func requireUnused(
    _ destination: MigrationDestination, before job: String? = nil
  ) throws(ServiceError) {
    switch destination {
    case .nbd(let uri, _): try requireUnused(ExportDestination.nbd(uri), before: job)
    // Whose the disk is there, the other side says.
    case .peer, .stream: break
    }
  }
}

extension JobParameters {
  mutating func tls() throws(ServiceError) -> TargetTLS? {
    guard var members = try object("tls") else { return nil }
    let tls = TargetTLS(
      certificates: try members.text("certificates"), verify: try members.flag("verify") ?? true)
    try members.finish()
    return tls
  }
}

extension TargetTLS {
  var value: JobValue {
    var members: [String: JobValue] = ["verify": .flag(verify)]
    members["certificates"] = certificates.map(JobValue.text)
    return .object(members)
  }
}
