internal import Logging
internal import PloopDevice
internal import PloopFormat
package import PloopIO
internal import PloopNBD

// The beginning and the end of a service's life.

extension Service {
  /// Brings back the devices of the last run; nothing can be changed until it is done.
  ///
  /// A device that we had attached when the process ended, however it ended, is repaired safely: the
  /// in-use mark is our own. One that was closed is opened as for anybody. One that cannot come back
  /// is kept, failed, with the reason, and keeps nobody else from coming back. One that was handed over comes back
  /// whatever `autostart` says, until the other side has been told: nobody else is to get it meanwhile.
  package func recover() throws(ServiceError) {
    var (records, damaged, intents, known, open) = try store.read {
      transaction throws(ServiceError) in
      let (records, damaged) = try transaction.records()
      let (targets, more) = try transaction.targets()
      return (
        records, store.damages + damaged + more, try transaction.attachIntents(), targets,
        Set(try transaction.openJobs().map(\.id))
      )
    }
    known.forEach(targets.keep)
    for detail in damaged {
      log.error("a part of the state is damaged", metadata: ["reason": "\(detail)"])
    }
    let comesBack = { [open] (record: DeviceRecord) in
      record.autostart || record.handedOverBy.map(open.contains) == true
    }
    // Who has a disk of a fleet, the fleet says: what was written down here may be another node's by now.
    if fleet != nil, try joinFleet(records.filter(comesBack)) { (records, intents) = ([], []) }
    let returning = fleet == nil ? records.filter(comesBack) : []
    let back = Set(returning.map(\.id))
    let controllers = state.update { state in
      state.damages = damaged
      for intent in intents { state.unfinished[intent.id] = intent }
      state.stage = .recovering(back, of: returning.count)
      for record in records where !comesBack(record) && record.isAttached {
        state.unclosed[record.id] = record
      }
      return returning.map { (add($0.id, record: $0, to: &state), $0) }
    }
    // What was closed and is not to come back is forgotten.
    let forgotten = records.filter { !comesBack($0) && !$0.isAttached }
    if !forgotten.isEmpty {
      try store.write { transaction throws(ServiceError) in
        for record in forgotten { try transaction.remove(record.id) }
      }
    }
    try jobs.load {
      isHandedOver($0, by: $1)
    } isElsewhere: { [jobs, hasJoined = fleet != nil && hasJoined] in
      hasJoined && $0.device != nil && jobs.hasDevice($0)
    }
    // Of a target that cannot be read nobody knows the place.
    if damaged.isEmpty { RecordPruning(in: store.folder, roots, log).prune(known, jobs.open) }
    for (controller, record) in controllers {
      engine.submit { [self] in
        bringBack(controller, record)
        state.update { state in
          guard case .recovering(var missing, let all) = state.stage else { return }
          missing.remove(record.id)
          state.stage = .recovering(missing, of: all)
        }
      }
    }
    _ = state.wait { state -> Bool? in
      switch state.stage {
      case .recovering(let missing, _): missing.isEmpty ? true : nil
      case .starting, .serving, .stopping: true
      }
    }
    state.update { state in
      if case .recovering = state.stage { state.stage = .serving }
    }
    do throws(IOError) {
      try jobs.start(self)
      try fleet?.start(self, in: store.folder)
    } catch { throw ServiceError(error) }
  }

  /// Opens a disk that this service has had, or that another node has had, and serves it; one that cannot be opened is
  /// kept, failed, with the reason.
  ///
  /// - Returns: false for a device of a fleet that cannot be told to it: it is not kept, and is to be tried again.
  @discardableResult
  func bringBack(_ controller: DeviceController, _ record: DeviceRecord) -> Bool {
    do throws(ServiceError) {
      for export in record.exports { try table.reserve(export, device: record.id) }
      let chain = try plan(record)
      var options = AttachOptions()
      options.readonly = record.readonly
      options.suspended = record.suspended
      options.bitmapsInImage = record.bitmapsInImage == true
      // Of another chain than the one that we had, the mark may be somebody else's.
      let isKnown = record.isAttached && Service.haveSameFiles(record.deltas, chain.deltas)
      options.repairSafely = isKnown || wasOurs(record.id, chain.deltas)
      // What the record does not say yet, an intent says: a kill from here on leaves a mark of ours.
      if !isKnown {
        _ = try begin(AttachIntent(id: record.id, deltas: chain.deltas, wasClosed: false))
      }
      let device = try openChain(chain, for: record.id, options)
      lookAtNotes(chain, of: record.id)
      do throws(ServiceError) {
        try commitReturn(of: controller, record, chain, device)
      } catch  where fleet == nil && isKnown && record.failure == nil {
        // Nothing of what could not be written is news: it keeps nobody from their disk.
        log.error("the state cannot be written", metadata: ["reason": "\(error.detail)"])
        controller.enter(.attached(device))
        suspensions.follow(record)
        tellChanged(record.id, record.exports)
      } catch {
        let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
        // Of what may be another node's nothing is written, not even that it is closed.
        if fleet != nil {
          try? device.abandon(until: deadline)
        } else {
          try? device.detach(until: deadline)
        }
        throw error
      }
      openDoors(to: device, controller)
      log.info(
        "back", metadata: ["device": "\(record.id)", "repairs": "\(device.repairs.count)"])
      return true
    } catch {
      guard error.code != .fleetUnreachable else {
        log.warning(
          "a device was not taken",
          metadata: ["device": "\(record.id)", "reason": "\(error.detail)"])
        forget(record.id)
        return false
      }
      keepAway(from: record)
      fail(controller, error)
      log.error(
        "a device did not come back",
        metadata: ["device": "\(record.id)", "reason": "\(error.detail)"])
      return true
    }
  }

  private func commitReturn(
    of controller: DeviceController, _ record: DeviceRecord, _ chain: ChainPlan, _ device: Device
  ) throws(ServiceError) {
    var record = record
    record.deltas = chain.deltas
    // Somebody may have resized it meanwhile.
    record.sizeBytes = device.geometry.sizeBytes
    record.clusterBytes = device.geometry.clusterBytes
    record.version = device.geometry.version.rawValue
    record.isAttached = true
    record.failure = nil
    let lost = record.pushBackup
    if lost != nil, let name = record.pushBackupCheckpoint {
      dropCheckpoint(name, device, record.id)
    }
    record.pushBackup = nil
    record.pushBackupCheckpoint = nil
    let finished = intents(finishedBy: record.id, chain.deltas)
    try commit(record, of: controller, as: .deviceState, entering: .attached(device)) {
      (record, transaction) throws(ServiceError) in
      if let lost {
        try transaction.note(
          .pushBackupFailed, lost, device: record.id, at: try transaction.nextRevision())
      }
      for id in finished { try transaction.endIntent(of: id) }
    }
    state.withLock { state in
      for id in finished { state.unfinished[id] = nil }
    }
  }

  /// The files of a device that did not come back are still its own.
  private func keepAway(from record: DeviceRecord) {
    state.withLock { state in
      state.files.release(.device(record.id))
      var files: [(location: Roots.Location, identity: FileIdentity?)] = []
      for delta in record.deltas {
        if let location = try? roots.locate(delta.path, pointer: "") {
          files.append((location, nil))
        }
      }
      try? state.files.claim(files, for: .device(record.id), readonly: record.readonly)
    }
    for export in record.exports {
      guard let path = record.descriptor, let guid = export.snapshot.flatMap({ GUID($0) }),
        let chain = try? plan(descriptor: path, at: guid, readonly: true)
      else { continue }
      _ = try? claim(chain, for: .export(export.name, of: record.id))
    }
  }

  /// From now on nothing can be changed by anybody; what is being changed goes on.
  package func refuseChanges() {
    state.update { $0.stage = .stopping }
    waiting.close()
  }

  /// Ends it: no more clients, requests in flight answered, everything flushed, images closed.
  ///
  /// - Returns: whether all of that was done in time. What was not is left with its in-use mark, and
  ///   is repaired safely by the next run.
  package func stop(until deadline: Deadline) -> Bool {
    refuseChanges()
    let isSettled = fleet?.settle(until: deadline.half) ?? true
    let controllers = state.withLock { Array($0.devices.values) }
    // Before checks are given up: none may begin on a disk that is not checked any more.
    jobs.beginStop()
    giveUpChecks(of: controllers)
    // Whatever hangs leaves a half of the time for what comes behind it.
    jobs.stop(until: deadline.half)
    stopTimers()
    // Requests that wait for somebody who has a disk would keep their connections from ending.
    let patience = deadline.half
    let ends = Errand(with: controllers.filter { $0.now.maintenance != nil }, on: engine) {
      [self] in endMaintenance(atLastOf: $0, until: patience)
    }
    _ = ends.wait(until: patience)
    // What is turned away from now on gets no answer: who comes back asks again.
    server.beginStop()
    // Of disks that have been attached meanwhile.
    giveUpChecks(of: controllers)
    // Requests that wait at a suspended disk would keep their connections from ending.
    let suspended = controllers.filter { $0.attachedDevice?.isSuspended == true }
    let others = Set(controllers.map(\.id)).subtracting(suspended.map(\.id))
    let first = beginClosing(suspended, until: deadline)
    server.stop(until: deadline.half)
    let second = beginClosing(
      controllers.filter { others.contains($0.id) }, until: deadline)
    let isClean = [first, second].map { $0.wait(until: deadline) }.allSatisfy { $0 }
    fleet?.end(releasing: isClean && isSettled, in: store.folder)
    return isClean
  }

  /// Writes that wait for the check of an index would keep their connections from ending, and jobs themselves: they are
  /// turned away, the ones without an answer, and the jobs are begun again by the next run.
  private func giveUpChecks(of controllers: [DeviceController]) {
    let unchecked = controllers.compactMap { controller -> Device? in
      guard let device = controller.attachedDevice, !device.isChecked else { return nil }
      return device
    }
    guard !unchecked.isEmpty else { return }
    server.beginStop()
    unchecked.forEach { $0.giveUpCheck() }
  }

  private func beginClosing(_ controllers: [DeviceController], until deadline: Deadline) -> Errand {
    Errand(with: controllers, on: engine) { [self] controller in
      defer { closeSnapshots(of: controller.id, until: deadline) }
      return close(controller, until: deadline)
    }
  }

  /// - Returns: false where an operation of the device has not ended in time.
  private func endMaintenance(
    atLastOf controller: DeviceController, until deadline: Deadline
  ) -> Bool {
    guard controller.takeTurn(until: deadline) else { return false }
    defer { controller.giveTurnBack() }
    endMaintenance(of: controller, until: deadline)
    return true
  }

  /// Closes a device's disk, if it has one, as no operation of the device is at work.
  ///
  /// - Returns: false for a disk that is left with its in-use mark and a record that says so.
  private func close(_ controller: DeviceController, until deadline: Deadline) -> Bool {
    guard isOurs(controller.id)() else { return abandon(controller.id) }
    // First of all: whatever keeps the disk from being closed, what was acknowledged is durable.
    controller.attachedDevice?.flushIfDirty()
    guard controller.takeTurn(until: deadline) else {
      log.error(
        "a disk was not closed",
        metadata: [
          "device": "\(controller.id)", "reason": "an operation of it has not ended in time",
        ])
      return false
    }
    defer { controller.giveTurnBack() }
    guard let device = controller.attachedDevice, var record = controller.now.record else {
      return true
    }
    guard !jobs.heldDevices.contains(controller.id) else {
      // It may be about to write to the image, which the next run repairs.
      log.error(
        "a disk was not closed",
        metadata: ["device": "\(controller.id)", "reason": "a job of it has not ended in time"])
      return false
    }
    let isDegraded = device.failure != nil
    controller.enter(.detaching(device))
    do throws(DeviceError) { try device.detach(until: deadline) } catch {
      log.error(
        "a disk was not closed",
        metadata: ["device": "\(controller.id)", "reason": "\(error.detail)"])
      return false
    }
    // A degraded disk keeps its in-use mark, and so does our record of it.
    record.isAttached = isDegraded
    do throws(ServiceError) {
      let isAwaited = record.handedOverBy.map(jobs.isOpen) == true
      let isKept = record.autostart || isDegraded || isAwaited
      try fleet?.release(record.id, leaving: isKept ? record : nil)
      if isKept, fleet == nil {
        try store.save(record)
      } else {
        try store.remove(record.id)
      }
      return true
    } catch {
      // The image is closed all the same; the next run finds it clean.
      log.error("the state cannot be written", metadata: ["reason": "\(error.detail)"])
      return true
    }
  }
}
