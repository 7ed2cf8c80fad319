/// What is known of the fleet, as it was at one revision.
struct FleetView: Sendable {
  var revision: UInt64 = 0
  var nodes: [String: FleetNode] = [:]
  /// The leases of the nodes.
  var leases: [String: UInt64] = [:]
  var owners: [String: Ownership] = [:]
  var devices: [String: FleetDevice] = [:]

  mutating func apply(_ changes: [FleetChange], at revision: UInt64) {
    for change in changes {
      switch change {
      case .node(let name, let node, let lease):
        nodes[name] = node
        leases[name] = node == nil ? nil : lease
      case .owner(let device, let owner): owners[device] = owner
      case .device(let name, let device): devices[name] = device
      }
    }
    self.revision = max(self.revision, revision)
  }

  /// How many devices each node has.
  var loads: [String: Int] {
    owners.values.reduce(into: [:]) { loads, owner in loads[owner.node, default: 0] += 1 }
  }

  /// The node that has a device.
  func node(having device: String) -> FleetNode? { owners[device].flatMap { nodes[$0.node] } }
}
