import PloopIO

@testable import PloopControl

/// What etcd knows, in this process, with what a test wants to happen to it.
final class MemoryLeases: Sendable {
  struct State {
    var revision: UInt64 = 1
    var lastLease: UInt64 = 100
    var leases: Set<UInt64> = []
    var view = FleetView()
    var entries: [String: FleetEntry] = [:]
    var jobs: [String: [JobRecord]] = [:]
    var history: [(revision: UInt64, changes: [FleetChange])] = []
    /// Nodes whose calls do not get here.
    var cutOff: Set<String> = []
    /// Devices of which nothing new is taken, so that whoever tells it waits, and how many do.
    var heldBack: Set<String> = []
    var waiting = 0

    mutating func change(_ changes: [FleetChange]) {
      revision += 1
      view.apply(changes, at: revision)
      history.append((revision, changes))
    }
  }

  let state = Monitor(State())

  func store(of node: String) -> MemoryLeaseStore { MemoryLeaseStore(leases: self, node: node) }

  func cut(off node: String, _ isCut: Bool = true) {
    state.update { state in
      if isCut { state.cutOff.insert(node) } else { state.cutOff.remove(node) }
    }
  }

  /// What is told of a device is answered from now on, or not yet.
  func hold(back device: String, _ isHeld: Bool = true) {
    state.update { state in
      if isHeld { state.heldBack.insert(device) } else { state.heldBack.remove(device) }
    }
  }

  /// As time does it: the leases of a node are over.
  func expire(_ node: String) {
    state.update { state in
      guard let lease = state.view.leases[node] else { return }
      state.end(lease)
    }
  }
}

extension MemoryLeases.State {
  mutating func end(_ lease: UInt64) {
    leases.remove(lease)
    change(
      view.leases.filter { $0.value == lease }.map { .node($0.key, nil, lease: 0) }
        + view.owners.filter { $0.value.lease == lease }.map { .owner(device: $0.key, nil) })
  }

  mutating func keep(_ entry: FleetEntry?, of device: String) -> FleetChange {
    entries[device] = entry
    return .device(device, entry.map(FleetDevice.init))
  }
}

struct MemoryLeaseStore: LeaseStore {
  let leases: MemoryLeases
  let node: String

  private func asking<Result>(
    _ body: (inout MemoryLeases.State) -> Result
  ) throws(LeaseError) -> Result {
    let result = leases.state.update { state in
      state.cutOff.contains(node) ? nil : body(&state)
    }
    guard let result else { throw LeaseError(kind: .unreachable, detail: "\(node) is cut off") }
    return result
  }

  private func awaitTurn(of device: String) throws(LeaseError) {
    leases.state.update { $0.waiting += 1 }
    defer { leases.state.update { $0.waiting -= 1 } }
    let isTurn = leases.state.wait(until: .after(seconds: 60)) { state in
      state.heldBack.contains(device) ? nil : true
    }
    guard isTurn != nil else { throw LeaseError(kind: .unreachable, detail: "no answer in 60 s") }
  }

  func begin(seconds: Int) throws(LeaseError) -> UInt64 {
    try asking { state in
      state.lastLease += 1
      state.leases.insert(state.lastLease)
      return state.lastLease
    }
  }

  func renew(_ lease: UInt64) throws(LeaseError) -> Bool {
    try asking { $0.leases.contains(lease) }
  }

  func end(_ lease: UInt64) throws(LeaseError) { try asking { $0.end(lease) } }

  func register(_ node: FleetNode, under lease: UInt64) throws(LeaseError) -> Bool {
    try asking { state in
      guard state.view.leases[node.name] ?? lease == lease else { return false }
      state.change([.node(node.name, node, lease: lease)])
      return true
    }
  }

  func acquire(
    _ device: String, for node: String, under lease: UInt64
  ) throws(LeaseError) -> UInt64? {
    try asking { state in
      if let owner = state.view.owners[device] { return owner.lease == lease ? owner.epoch : nil }
      guard state.leases.contains(lease) else { return nil }
      let epoch = state.revision + 1
      state.change([
        .owner(device: device, Ownership(node: node, lease: lease, epoch: epoch))
      ])
      return epoch
    }
  }

  func hand(
    _ device: String, _ ownership: Ownership, to node: String, under lease: UInt64,
    leaving entry: FleetEntry
  ) throws(LeaseError) -> UInt64? {
    try asking { state in
      guard state.view.owners[device] == ownership, state.view.nodes[node] != nil else {
        return nil
      }
      let epoch = state.revision + 1
      let kept = state.keep(entry, of: device)
      state.change([
        .owner(device: device, Ownership(node: node, lease: lease, epoch: epoch)), kept,
      ])
      return epoch
    }
  }

  func release(
    _ device: String, _ ownership: Ownership, leaving entry: FleetEntry?
  ) throws(LeaseError) -> UInt64? {
    try asking { state in
      guard state.view.owners[device] == ownership else { return nil }
      let kept = state.keep(entry, of: device)
      if entry == nil { state.jobs[device] = nil }
      state.change([.owner(device: device, nil), kept])
      return state.revision
    }
  }

  func owner(of device: String) throws(LeaseError) -> Ownership? {
    try asking { $0.view.owners[device] }
  }

  func keep(_ entry: FleetEntry, of device: String) throws(LeaseError) -> Bool {
    try awaitTurn(of: device)
    return try asking { state in
      guard state.view.owners[device]?.epoch == entry.epoch else { return false }
      let kept = state.keep(entry, of: device)
      state.change([kept])
      return true
    }
  }

  func entry(of device: String) throws(LeaseError) -> FleetEntry? {
    try asking { $0.entries[device] }
  }

  func keep(
    _ job: JobRecord, of device: String, at epoch: UInt64
  ) throws(LeaseError) -> Bool {
    try awaitTurn(of: device)
    return try asking { state in
      guard state.view.owners[device]?.epoch == epoch else { return false }
      state.jobs[device, default: []].removeAll { $0.id == job.id }
      state.jobs[device, default: []].append(job)
      return true
    }
  }

  func remove(job: String, of device: String, at epoch: UInt64) throws(LeaseError) -> Bool {
    try asking { state in
      guard state.view.owners[device]?.epoch == epoch else { return false }
      state.jobs[device, default: []].removeAll { $0.id == job }
      return true
    }
  }

  func jobs(of device: String) throws(LeaseError) -> [JobRecord] {
    try asking { $0.jobs[device] ?? [] }
  }

  func list() throws(LeaseError) -> FleetView {
    try asking { state in
      var view = state.view
      view.apply([], at: state.revision)
      return view
    }
  }

  func watch(
    behind revision: UInt64, seconds: Int, _ receive: ([FleetChange], UInt64) -> Bool
  ) throws(LeaseError) {
    var seen = revision
    let deadline = Deadline.after(milliseconds: 500)
    while !deadline.hasPassed {
      let news = leases.state.wait(until: deadline) { state -> [(UInt64, [FleetChange])]? in
        if state.cutOff.contains(node) { return [] }
        let news = state.history.filter { $0.revision > seen }
        return news.isEmpty ? nil : news.map { ($0.revision, $0.changes) }
      }
      guard let news else { return }
      guard !news.isEmpty else {
        throw LeaseError(kind: .unreachable, detail: "\(node) is cut off")
      }
      for (revision, changes) in news {
        guard receive(changes, revision) else { return }
        seen = revision
      }
    }
  }
}
