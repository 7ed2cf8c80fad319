/// What is known of the fleet, as it was at one revision.
///
/// What a node looks for again and again, devices of a lease and those that nobody has, is kept as it changes: a look costs
/// what there is to do, however many devices the fleet has.
struct FleetView: Sendable {
  private(set) var revision: UInt64
  private(set) var nodes: [String: FleetNode] = [:]
  /// Grows with each node that comes or goes.
  private(set) var nodesRevision: UInt64 = 0
  /// The leases of the nodes.
  private(set) var leases: [String: UInt64] = [:]
  private(set) var owners: [String: Ownership] = [:]
  private(set) var devices: [String: FleetDevice] = [:]
  /// How many devices each node has.
  private(set) var loads: [String: Int] = [:]
  /// Devices that are known, are to be served, and that nobody has.
  private(set) var unowned: Set<String> = []
  private var devicesOfLeases: [UInt64: Set<String>] = [:]

  init(revision: UInt64 = 0) { self.revision = revision }

  mutating func apply(_ changes: [FleetChange], at revision: UInt64) {
    for change in changes {
      switch change {
      case .node(let name, let node, let lease):
        if nodes[name] != node { nodesRevision += 1 }
        nodes[name] = node
        leases[name] = node == nil ? nil : lease
      case .owner(let device, let owner): set(owner, of: device)
      case .device(let name, let device):
        devices[name] = device
        sort(name)
      }
    }
    self.revision = max(self.revision, revision)
  }

  private mutating func set(_ owner: Ownership?, of device: String) {
    if let before = owners[device] {
      let left = (loads[before.node] ?? 0) - 1
      loads[before.node] = left > 0 ? left : nil
      devicesOfLeases[before.lease]?.remove(device)
      if devicesOfLeases[before.lease]?.isEmpty == true { devicesOfLeases[before.lease] = nil }
    }
    owners[device] = owner
    if let owner {
      loads[owner.node, default: 0] += 1
      devicesOfLeases[owner.lease, default: []].insert(device)
    }
    sort(device)
  }

  private mutating func sort(_ device: String) {
    if devices[device]?.isWanted == true, owners[device] == nil {
      unowned.insert(device)
    } else {
      unowned.remove(device)
    }
  }

  func devices(under lease: UInt64) -> Set<String> { devicesOfLeases[lease] ?? [] }

  /// The node that has a device.
  func node(having device: String) -> FleetNode? { owners[device].flatMap { nodes[$0.node] } }
}
