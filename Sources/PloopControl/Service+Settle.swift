internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What a crash has left of a change of a chain.

extension Service {
  /// Notes, durably, which request an interrupted change was made for, if it was made; call it before
  /// the intent is settled.
  func noteOutcome(
    beside file: DescriptorFile, _ location: Roots.Location
  ) throws(ServiceError) {
    let (intent, descriptor) = try converting {
      () throws(DeviceError) -> (ChainIntent?, Descriptor?) in
      guard let intent = try IntentFile(beside: file).read() else { return (nil, nil) }
      return (intent, try file.read())
    }
    guard let intent, let descriptor else { return }
    try noteOurs(intent, descriptor, location)
    guard intent.isMade(by: descriptor) else { return }
    log.notice(
      "a change that a crash interrupted had been made",
      metadata: [
        "descriptor": "\(location.path)", "operation": "\(intent.operation.rawValue)",
        "snapshot": "\(intent.snapshot)",
      ])
    guard let request = intent.request else { return }
    let key = RequestKey(
      request.key, route: request.route, fingerprint: request.fingerprint)
    try store.write { transaction throws(ServiceError) in
      guard try transaction.answer(of: key) == nil else { return }
      try transaction.keepOutcome(
        of: key, device: intent.device, snapshot: intent.snapshot)
    }
  }

  /// A change is only made by who has the disk open: marks in the images of its chain are our own. A
  /// restore alone is made of one that nobody has open.
  private func noteOurs(
    _ intent: ChainIntent, _ descriptor: Descriptor, _ location: Roots.Location
  ) throws(ServiceError) {
    guard intent.operation != .restore else { return }
    let isAttached = state.withLock { state in
      state.unfinished[intent.device] != nil || state.devices[intent.device]?.hasDisk == true
    }
    guard !isAttached,
      let deltas = try? deltas(of: descriptor, to: descriptor.topGUID, at: location)
    else { return }
    let ours = AttachIntent(id: intent.device, deltas: deltas, wasClosed: true)
    try store.write { transaction throws(ServiceError) in try transaction.begin(ours) }
    state.withLock { $0.unfinished[intent.device] = ours }
  }

  /// Ends what a crash has left of a change, before the chain is used.
  ///
  /// What a device has is its own, also while it is closed to be opened anew: an intent is then one of
  /// a change that goes on.
  func settle(_ file: DescriptorFile, at location: Roots.Location) throws(ServiceError) {
    let isUsed = state.withLock { state in
      state.devices.values.contains { controller in
        guard let record = controller.now.record, record.descriptor == location.path,
          !record.readonly
        else { return false }
        return controller.hasDisk || state.files.hasFiles(of: record.id)
      }
    }
    guard !isUsed else { return }
    try noteOutcome(beside: file, location)
    _ = try converting { () throws(DeviceError) in try ChainChange.settle(file) }
  }

  /// The snapshot that a request with this key has made, where a crash came before its answer.
  func outcome(of key: RequestKey, for device: String) throws(ServiceError) -> GUID? {
    let outcome = try store.read { transaction throws(ServiceError) in
      try transaction.outcome(of: key)
    }
    guard let outcome, outcome.device == device else { return nil }
    guard outcome.fingerprint == key.fingerprint else {
      throw ServiceError(
        .idempotencyKeyReused, "the key \(key.text) belongs to another request",
        remedy: "use a new key for each request")
    }
    return GUID(outcome.snapshot)
  }
}
