package import PloopControl

/// What a request needs of its caller; each of the first three includes those before it.
package enum Scope: String, CaseIterable, Sendable {
  /// To see everything but the bytes of disks.
  case read
  /// To work with disks that are there.
  case operate
  /// To make and remove disks, and all that names files and places.
  case admin
  /// To read bytes of disks over HTTP.
  case data

  fileprivate var included: Set<Scope> {
    switch self {
    case .read: [.read]
    case .operate: [.read, .operate]
    case .admin: [.read, .operate, .admin]
    case .data: [.data]
    }
  }
}

/// What somebody may do, and with which devices.
package struct Grant: Sendable, Equatable {
  package static let all = Grant([.admin, .data])

  /// As they were given.
  package let scopes: Set<Scope>
  /// Nil for all of them, and for what belongs to no device.
  package let devices: DeviceGlobs?
  /// With those that they include.
  private let allowed: Set<Scope>

  package init(_ scopes: Set<Scope>, devices: DeviceGlobs? = nil) {
    self.scopes = scopes
    self.devices = devices
    allowed = scopes.reduce(into: []) { $0.formUnion($1.included) }
  }

  package func allows(_ scope: Scope) -> Bool { allowed.contains(scope) }
}

/// Who has sent a request.
package struct Caller: Sendable, Equatable {
  /// As it is written down: `uid:0`, `token:nightly`, `anonymous`.
  package let actor: String
  package let grant: Grant

  package init(actor: String, grant: Grant) {
    self.actor = actor
    self.grant = grant
  }

  /// Keys of different callers have nothing to do with each other, or one could hear what another was
  /// answered. Users of the Unix socket, who may hear everything, share theirs.
  var keyPrefix: String { actor.hasPrefix("uid:") ? "" : "\(actor) " }

  func require(_ scope: Scope) throws(Problem) {
    guard !grant.allows(scope) else { return }
    var problem = Problem("scope-missing", "\(actor) may not do this: it needs the scope \(scope)")
    problem.error.facts["scope"] = .text(scope.rawValue)
    throw problem
  }

  /// Devices of others are as good as not there.
  func mayUse(device id: String) -> Bool { grant.devices?.contains(id) ?? true }

  func require(device id: String) throws(Problem) {
    guard !mayUse(device: id) else { return }
    throw .foreign("device-not-found", "there is no device \(id)")
  }

  /// For what reaches beyond single devices.
  func requireAllDevices() throws(Problem) {
    guard grant.devices != nil else { return }
    throw Problem(
      "devices-limited", "\(actor) may work with some devices only, and this reaches beyond them")
  }
}
