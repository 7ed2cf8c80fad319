/// What a node has to do next about who has which device: decided from values alone.
struct FleetPlan {
  enum Action: Equatable {
    /// The device is somebody else's, or may be: nothing is written to it any more.
    case abandon(String)
    /// It is this node's, which does not serve it yet.
    case take(String, Ownership)
    /// Nobody has it, and this node is the one that should.
    case acquire(String)
  }

  /// How long a node waits for each one that comes before it to take a device.
  static let turnNanoseconds: UInt64 = 3_000_000_000
  /// So many devices come at the same time.
  static let actionLimit = 16
  /// So many nodes are weighed for devices in one look, while which nothing else is known: all of a large fleet may be nobody's.
  static let weighingLimit = 100_000

  /// What a node remembers of a device that nobody has, from one look to the next.
  struct Vacancy: Equatable {
    /// When it was seen to be nobody's, by ``bootNanoseconds()``.
    var since: UInt64
    /// How many nodes come before this one; nil when the device is not for it.
    var turn: Int?
    /// Of which nodes that is so; nil while they have not been weighed.
    var nodesRevision: UInt64?
  }

  let node: FleetNode
  /// Of this node; nil while it has none.
  let lease: UInt64?
  let view: FleetView
  /// What this node takes for its own.
  let claims: [String: Ownership]
  /// Devices about which something is being done.
  let busy: Set<String>
  /// From which revision on a view knows what this node has done with a device itself.
  var settledAt: [String: UInt64] = [:]
  /// By ``bootNanoseconds()``.
  let now: UInt64

  /// - Parameter vacancies: devices that are nobody's; kept from one look to the next.
  func actions(_ vacancies: inout [String: Vacancy]) -> [Action] {
    var actions = lost.map(Action.abandon)
    guard let lease else {
      vacancies = [:]
      return actions
    }
    var room = FleetPlan.actionLimit - busy.count
    for device in view.devices(under: lease).sorted()
    where claims[device] == nil && isKnown(device) && room > 0 {
      guard let owner = view.owners[device] else { continue }
      actions.append(.take(device, owner))
      room -= 1
    }
    var seen: [String: Vacancy] = [:]
    var load = view.loads[node.name, default: 0]
    var weighings = FleetPlan.weighingLimit
    for name in view.unowned.sorted() where claims[name] == nil {
      guard let device = view.devices[name] else { continue }
      var vacancy = vacancies[name] ?? Vacancy(since: now)
      if vacancy.nodesRevision != view.nodesRevision, weighings > 0 {
        vacancy.turn = Placement.turn(
          of: node, for: name, wanting: device.wanted, among: view.nodes.values, loads: view.loads)
        vacancy.nodesRevision = view.nodesRevision
        weighings -= max(1, view.nodes.count)
      }
      seen[name] = vacancy
      guard room > 0, load < node.capacity, isKnown(name), let turn = vacancy.turn,
        now - min(vacancy.since, now) >= UInt64(clamping: turn) * FleetPlan.turnNanoseconds
      else { continue }
      actions.append(.acquire(name))
      room -= 1
      load += 1
    }
    vacancies = seen
    return actions
  }

  /// Whether the view is of now, as far as this node's own doing goes.
  private func isKnown(_ device: String) -> Bool {
    !busy.contains(device) && view.revision >= settledAt[device] ?? 0
  }

  /// What was claimed under a lease that is over, or is another's by what the view knows.
  private var lost: [String] {
    claims.filter { device, claim in
      guard !busy.contains(device) else { return false }
      guard claim.lease == lease else { return true }
      guard view.revision >= claim.epoch else { return false }
      return view.owners[device]?.epoch != claim.epoch
    }.keys.sorted()
  }
}
