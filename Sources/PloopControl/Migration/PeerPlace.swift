internal import Logging
internal import PloopBackup
internal import PloopFormat
internal import PloopPeer

/// A disk that another service makes, and has under the name of the job that moves it here until it is handed over:
/// whoever else finds it there knows whose it is, and a job that comes to nothing removes it with its files.
struct PeerPlace: MigrationPlace {
  private let destination: PeerDestination
  private let id: String
  private let job: String
  private let service: Service

  /// - Parameter device: that is moved.
  init(_ destination: PeerDestination, of device: String, for job: String, _ service: Service) {
    self.destination = destination
    id = destination.id ?? device
    self.job = job
    self.service = service
  }

  var words: String { "\(destination.api) \(id)" }

  /// The door through which the disk is copied, and nobody else comes.
  private var door: String { "move-\(job.lowercased())" }

  private func peer() throws(ServiceError) -> PeerService {
    PeerService(try destination.address(service))
  }

  func open(
    for geometry: Geometry
  ) throws(ServiceError) -> (export: any BlockExport, isBlank: Bool) {
    let peer = try peer()
    // A new disk has whole clusters.
    let size = geometry.clusterCount * geometry.clusterBytes
    let isThere = try find(peer) != nil
    if !isThere {
      let new = PeerService.NewDevice(
        id: id, directory: destination.directory, sizeBytes: size,
        clusterBytes: geometry.clusterBytes, version: geometry.version.rawValue, export: door,
        incoming: job)
      try asking { () throws(PeerError) in try peer.create(new) }
    } else {
      // A new door each time: what the connection before has sent is done or dropped before anything else is
      // written, so that nothing old comes late.
      try asking { () throws(PeerError) in
        try peer.removeExport(door)
        try peer.addExport(door, of: id)
      }
    }
    guard let uri = destination.exportURI(door) else {
      throw ServiceError(.invalidValue, "nbd: \(destination.nbd) is no address of a server")
    }
    let options = try service.nbdOptions(uri, destination.tls)
    return (
      try backingUp { () throws(BackupError) in try openExport(nbd: uri, options) }, !isThere
    )
  }

  /// The disk there, if it is one for this job.
  ///
  /// - Throws: `peer-refused` where it is somebody else's.
  private func find(_ peer: PeerService) throws(ServiceError) -> PeerService.Device? {
    guard let found = try asking({ () throws(PeerError) in try peer.device(id) }) else {
      return nil
    }
    guard found.incoming == job else {
      throw ServiceError(
        .peerRefused, "\(words) is there, and not for this job", cause: "device-exists",
        remedy: "choose another id")
    }
    return found
  }

  func takeOver() throws(ServiceError) {
    let peer = try peer()
    guard let found = try asking({ () throws(PeerError) in try peer.device(id) }),
      found.incoming == nil || found.incoming == job
    else {
      throw ServiceError(
        .peerRefused, "\(words) is gone, or another one", cause: "device-not-found",
        remedy: "look what has become of it there before you resume the disk here by force")
    }
    try asking { () throws(PeerError) in
      try peer.removeExport(door)
      if found.incoming != nil { try peer.takeOver(id) }
    }
    guard let export = destination.export else { return }
    let there = try asking { () throws(PeerError) in try peer.export(export) }
    guard there == nil else {
      guard there?.device == id else {
        throw ServiceError(
          .peerRefused, "the other service has an export \(export) of another device",
          cause: "export-exists", remedy: "open one there by another name")
      }
      return
    }
    let access = destination.access.map {
      PeerService.Access(tls: $0.tls, names: $0.names, addresses: $0.addresses)
    }
    try asking { () throws(PeerError) in try peer.addExport(export, of: id, for: access) }
  }

  func discard() {
    do throws(ServiceError) {
      let peer = try peer()
      guard try asking({ () throws(PeerError) in try peer.device(id) })?.incoming == job else {
        return
      }
      try asking { () throws(PeerError) in try peer.remove(device: id) }
    } catch {
      service.log.warning(
        "what was begun of a disk that was to be moved is left at the other service",
        metadata: ["job": "\(job)", "to": "\(words)", "reason": "\(error.detail)"])
    }
  }

  @discardableResult
  private func asking<Result>(
    _ body: () throws(PeerError) -> Result
  ) throws(ServiceError) -> Result {
    do throws(PeerError) { return try body() } catch { throw ServiceError(error) }
  }
}

extension ServiceError {
  init(_ error: PeerError) {
    switch error.kind {
    case .unreachable: self.init(.targetUnreachable, error.detail)
    case .refused(_, let code): self.init(.peerRefused, error.detail, cause: code)
    case .unsuitable: self.init(.peerRefused, error.detail)
    }
  }
}
