internal import PloopIO
internal import PloopPeer

/// Another service to which a disk is moved.
struct PeerDestination: Equatable, Sendable {
  static let pointer = "/params/to/ploopd"
  private static let credentialsPointer = "\(pointer)/credentials"

  /// Of its API: `http://`, `https://`, or `http+unix:///?socket=`.
  var api: String
  /// A folder, `root:relative`, with what is shown to an API of `https://` (``PeerCredentials``); nil for nothing. What is
  /// in it is read for each request, and kept nowhere.
  var credentials: String?
  /// Of its NBD server, without the name of an export.
  var nbd: String
  var tls: TargetTLS?
  /// Of the device there; nil for that of the device here.
  var id: String?
  /// With a root of the other service's.
  var directory: String
  /// The name of a door that is opened when the disk is taken over, if there is to be one.
  var export: String?
  /// Who may come in by it; nil for everybody. Whether anybody could, the other service knows.
  var access: ExportAccess?

  init(_ members: JobParameters) throws(ServiceError) {
    var members = members
    api = try members.requiredText("api")
    credentials = try members.text("credentials")
    nbd = try members.requiredText("nbd")
    tls = try members.tls()
    id = try members.name("id")
    directory = try members.requiredText("directory")
    export = try members.name("export")
    access = try members.access(of: export)
    try members.finish()
    guard exportURI("x") != nil else {
      throw members.impossible("nbd", "the address of a server, without an export, is expected")
    }
  }

  /// The same, whatever roots there are later.
  func pinned(_ service: Service) throws(ServiceError) -> PeerDestination {
    var pinned = self
    try service.requireAddress(nbd, pointer: "\(Self.pointer)/nbd")
    pinned.tls = try service.canonical(tls, of: nbd, pointer: "\(Self.pointer)/tls")
    if let credentials {
      pinned.credentials =
        try service.roots.locate(credentials, pointer: Self.credentialsPointer).path
    }
    let address = try pinned.address(service)
    do throws(PeerError) { try address.requireCredentials() } catch {
      throw ServiceError(
        .valueImpossible, "credentials: \(error.detail)", pointer: Self.credentialsPointer)
    }
    return pinned
  }

  var value: JobValue {
    var members: [String: JobValue] = [
      "api": .text(api), "nbd": .text(nbd), "directory": .text(directory),
    ]
    members["credentials"] = credentials.map(JobValue.text)
    members["tls"] = tls?.value
    members["id"] = id.map(JobValue.text)
    members["export"] = export.map(JobValue.text)
    members["access"] = access?.value
    return .object(members)
  }

  /// - Throws: `invalid-value`, `value-impossible`; `path-outside-root` for a socket that lies beneath no root.
  func address(_ service: Service) throws(ServiceError) -> PeerAddress {
    let pointer = "\(Self.pointer)/api"
    guard credentials == nil || api.hasPrefix("https://") else {
      throw ServiceError(
        .valueImpossible, "credentials: they are shown to an API of https:// alone",
        pointer: Self.credentialsPointer)
    }
    if let socket = try service.socket(of: api, pointer: pointer) {
      return PeerAddress(socketNamed: api) { [roots = service.roots] () throws(PeerError) in
        do throws(ServiceError) { return try roots.socket(at: socket) } catch {
          throw PeerError(.unreachable, error.detail)
        }
      }
    }
    var found: (@Sendable () throws(PeerError) -> PeerCredentials)?
    if let credentials { found = try service.credentials(in: credentials) }
    guard let address = PeerAddress(api, found) else {
      let isOne = ["http://", "https://"].contains(where: api.hasPrefix)
      throw ServiceError(
        isOne ? .valueImpossible : .invalidValue,
        "api: http:// or https:// with host and port, or http+unix:// is expected",
        pointer: pointer)
    }
    return address
  }

  /// The address of an export of the other side's server; nil where that address has one already.
  func exportURI(_ name: String) -> String? {
    let parts = nbd.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
    guard let scheme = parts[0].firstRange(of: "://") else { return nil }
    let rest = parts[0][scheme.upperBound...]
    let authority = rest.prefix { $0 != "/" }
    guard ["", "/"].contains(rest.dropFirst(authority.count)) else { return nil }
    let query = parts.count > 1 ? "?\(parts[1])" : ""
    return "\(parts[0][..<scheme.upperBound])\(authority)/\(name)\(query)"
  }
}

extension Service {
  /// Finds what a folder beneath a root has for another service.
  fileprivate func credentials(
    in path: String
  ) throws(ServiceError) -> @Sendable () throws(PeerError) -> PeerCredentials {
    let folder = try roots.locate(path, pointer: "")
    return { [roots] () throws(PeerError) in
      let found: ImageFolder
      do throws(ServiceError) { found = try roots.folder(at: folder, pointer: "") } catch {
        throw PeerError(.unsuitable, error.detail)
      }
      return try PeerCredentials(in: found)
    }
  }
}
