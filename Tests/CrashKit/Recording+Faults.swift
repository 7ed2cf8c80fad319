internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

extension Recording {
  /// Has the watch fail calls as `faults` says, beside what the setup's host cannot do.
  func plan(_ faults: Watch.Rule?) {
    let setup = self.setup
    watch.use { [weak self] number, operation in
      switch operation {
      case .punchHole where !setup.hasHoles, .allocate where !setup.hasHoles:
        return .error(EOPNOTSUPP)
      case .write(let offset, _) where setup.runsRound(aheadOf: offset),
        .cloneRange(let offset, _) where setup.runsRound(aheadOf: offset):
        self?.flushInside()
      default: break
      }
      return faults?(number, operation)
    }
  }

  /// After each step: when the disk can no longer be written or did not open or close, it is
  /// looked at, power is cut if a sync had failed, and it is attached again with safe repair.
  func recover() throws {
    let (last, mustReopen, isBusy) = state.withLock { state in
      (state.failures.last, state.mustReopen, state.isConcurrent || state.isInsideRound)
    }
    guard !isBusy, let last else { return }
    let isDying = state.withLock { $0.isDying }
    if let device, device.failure != nil, !isDying {
      try checkDegraded(device)
    } else if !mustReopen, !isDying {
      return
    }
    // One fault is planned: what fails again has not come back.
    if state.withLock({ $0.hasRecovered }) { throw last.error }
    state.withLock { state in
      state.mustReopen = false
      state.hasRecovered = true
      state.isDying = false
    }
    plan(nil)
    kill()
    if case .sync? = watch.hit, !isDying { try losePower() }
    let start = position
    try attach()
    if isDying { state.withLock { $0.restart = start..<position } }
    if case .detach = last.kind { try detach() }
  }

  func expect(_ fault: FaultSweep.Fault) {
    state.withLock { state in
      state.isFull = fault == .diskFull
      state.isDying = fault == .kill
    }
  }

  /// A full disk has room again: everything works as it is, without another attach.
  func makeRoom() throws {
    let failed = state.withLock { state -> Int? in
      defer { state.isFull = false }
      return state.isFull ? state.failures.count : nil
    }
    guard let failed else { return }
    plan(nil)
    for cluster in 0..<Int(setup.geometry.clusterCount) {
      let sectors = setup.sectors(of: cluster..<cluster + 1)
      try write(sectors.lowerBound + 1..<sectors.lowerBound + 3)
    }
    try flush()
    if state.withLock({ $0.failures.count }) > failed { report("fails although there is room") }
  }

  /// A disk whose sync failed: reads are right, everything that changes it fails, closing works.
  private func checkDegraded(_ device: Device) throws {
    _ = try compare(device, "degraded") { $0.readable(sector: $1) }
    let requests: [(String, () throws -> Void)] = [
      ("write", { try device.write(AlignedBuffer(count: 512).region, at: 0, durable: false) }),
      ("trim", { try device.discard(offset: 0, length: 4096, durable: false) }),
      ("flush", { try device.flush() }),
    ]
    for (name, request) in requests {
      do {
        try request()
        report("a \(name) succeeded on a degraded disk")
      } catch let error as DeviceError {
        guard case .degraded = error.kind else { throw error }
      }
    }
    if device.writeNow(AlignedBuffer(count: 512).region, at: 0) {
      report("a quick write succeeded on a degraded disk")
    }
    try device.detach(until: .after(seconds: 10))
  }

  /// Puts one of the contents on the disk that a power failure could leave now.
  private func losePower() throws {
    let events = trace.events
    var random = SeededGenerator(seed: UInt64(events.count))
    var states = CrashStates(
      initial: initial, blockBytes: Bool.random(using: &random) ? 4096 : 512)
    states.apply(events, path: topPath)
    try CrashStates.put(states.sample(using: &random), into: plain)
  }
}
