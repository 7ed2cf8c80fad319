internal import Logging
internal import PloopIO

// What a node does about what it sees: takes devices and gives them up, and brings in what it had for itself.

extension Fleet {
  private static let longestDelaySeconds: UInt64 = 30
  /// The clock, too, is a reason to look.
  private static let longestPauseMilliseconds = 250

  /// Brings devices into the fleet that it does not know yet.
  func bring(_ records: [DeviceRecord]) {
    state.withLock { state in
      for record in records { state.brought[record.id] = record }
    }
  }

  /// What is brought is told, one after the other, and is the fleet's from then on.
  private func settleIn(_ service: Service) {
    let brought = state.withLock { state -> [String: DeviceRecord]? in
      guard state.view != nil, state.lease?.isHeld == true, !state.isSettlingIn,
        !state.brought.isEmpty
      else { return nil }
      state.isSettlingIn = true
      return state.brought
    }
    guard let brought else { return }
    service.engine.submit { [self] in
      service.engine.aside {
        for (id, record) in brought.sorted(by: { $0.key < $1.key }) {
          guard isTold(record, service) else { break }
          state.withLock { $0.brought[id] = nil }
        }
        if state.withLock({ $0.brought.isEmpty }) { service.hasJoinedFleet() }
        state.withLock { $0.isSettlingIn = false }
      }
    }
  }

  /// - Returns: false when that has to be tried again.
  private func isTold(_ record: DeviceRecord, _ service: Service) -> Bool {
    // An owner without an entry would be taken for an attach that has come to nothing.
    hold(record.id)
    defer { letGo(record.id) }
    do throws(LeaseError) {
      guard let lease = state.withLock({ $0.lease }) else { return false }
      if let known = try store.entry(of: record.id) {
        if known.record.uuid == record.uuid {
          service.forgetRecord(record.id)
        } else {
          log.error(
            "a device of this node is not in the fleet, which has another one of its id",
            metadata: ["device": "\(record.id)", "uuid": "\(record.uuid)"])
        }
        return true
      }
      guard let epoch = try store.acquire(record.id, for: node.name, under: lease.id) else {
        return false
      }
      let entry = FleetEntry(
        record: record, state: record.isAttached ? .serving : .closed, node: node.name,
        epoch: epoch)
      guard try store.keep(entry, of: record.id) else { return false }
      service.forgetRecord(record.id)
      return true
    } catch {
      complain(error.detail)
      return false
    }
  }

  /// Looks once, has everything be done that is to be done, and waits until something has changed.
  func act(_ service: Service) {
    let start = bootNanoseconds()
    let seen = state.withLock { $0.changes }
    keepFence(service)
    settleIn(service)
    let actions = state.withLock { state -> [FleetPlan.Action] in
      guard let view = state.view, !service.isStopping else { return [] }
      let isHeld = state.lease?.isHeld == true
      let now = bootNanoseconds()
      let resting = state.delays.filter { $0.value.until > now }.keys
      let plan = FleetPlan(
        node: node, lease: isHeld ? state.lease?.id : nil, view: view, claims: state.claims,
        busy: state.busy.union(resting), settledAt: state.settledAt, now: now)
      state.settledAt = state.settledAt.filter { $0.value > view.revision }
      // A lease that may come back is no reason to abandon anything.
      let actions = plan.actions(&state.vacancies).filter { action in
        if case .abandon(let device) = action {
          return isHeld || state.claims[device]?.lease != state.lease?.id
        }
        return true
      }
      for action in actions { state.busy.insert(action.device) }
      return actions
    }
    for action in actions { begin(action, service) }
    // In a large fleet something always changes: looking is at most half of what there is to do.
    let lookMilliseconds = Int(clamping: (bootNanoseconds() - start) / 1_000_000)
    let pause = min(lookMilliseconds, Fleet.longestPauseMilliseconds)
    if pause > 0 {
      _ = state.wait(until: .after(milliseconds: pause)) { $0.isStopping ? true : nil }
    }
    _ = state.wait(until: .after(milliseconds: Fleet.longestPauseMilliseconds)) {
      $0.changes == seen ? nil : true
    }
  }

  /// Nobody is served behind the end of the lease, and everybody again when it was renewed after all.
  private func keepFence(_ service: Service) {
    let isHeld = isHeld
    let turn = state.withLock { state -> Bool? in
      guard !state.claims.isEmpty || state.isFenced, state.isFenced == isHeld else { return nil }
      state.isFenced = !isHeld
      return isHeld
    }
    guard let turn else { return }
    log.warning(
      turn ? "the lease is held again; clients are let in" : "the lease is over; nobody is served")
    turn ? service.openFence() : service.closeFence()
  }

  private func begin(_ action: FleetPlan.Action, _ service: Service) {
    service.engine.submit { [self] in
      service.engine.aside {
        let isDone = carryOut(action, service)
        state.update { state in
          state.busy.remove(action.device)
          if isDone {
            state.delays[action.device] = nil
          } else {
            let count = min(state.delays[action.device]?.count ?? 0, 5)
            let seconds = min(Fleet.longestDelaySeconds, 1 << UInt64(count))
            state.delays[action.device] = (count + 1, bootNanoseconds() + seconds * 1_000_000_000)
          }
          state.changes += 1
        }
      }
    }
  }

  /// - Returns: false for what is to be tried again, and not at once.
  private func carryOut(_ action: FleetPlan.Action, _ service: Service) -> Bool {
    do throws(LeaseError) {
      switch action {
      case .abandon(let device):
        guard service.abandon(device) else { return false }
        state.withLock { $0.claims[device] = nil }
        return true
      case .take(let device, let ownership): return try take(device, ownership, service)
      case .acquire(let device):
        guard let lease = state.withLock({ $0.lease }),
          let epoch = try store.acquire(device, for: node.name, under: lease.id)
        else { return true }
        return try take(
          device, Ownership(node: node.name, lease: lease.id, epoch: epoch), service)
      }
    } catch {
      log.warning(
        "a device was not taken",
        metadata: ["device": "\(action.device)", "reason": "\(error.detail)"])
      return false
    }
  }

  private func take(
    _ device: String, _ ownership: Ownership, _ service: Service
  ) throws(LeaseError) -> Bool {
    // What was heard may be old: an image is touched by who has it now.
    guard try store.owner(of: device) == ownership else { return true }
    guard let entry = try store.entry(of: device) else {
      // Of an attach that has come to nothing.
      _ = try store.release(device, ownership, leaving: nil)
      return true
    }
    let jobs = try store.jobs(of: device)
    state.withLock { $0.claims[device] = ownership }
    guard service.take(device, entry, ownership, jobs) else {
      state.withLock { $0.claims[device] = nil }
      return false
    }
    return true
  }
}

extension FleetPlan.Action {
  var device: String {
    switch self {
    case .abandon(let device), .take(let device, _), .acquire(let device): device
    }
  }
}
