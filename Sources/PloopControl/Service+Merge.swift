internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What the service knows of merging snapshots away: what it takes, and the branches that no device has.

extension Service {
  /// What merging a snapshot away would take; nothing is changed.
  ///
  /// - Parameter wanted: the direction that was asked for; nil for the one with less to copy.
  func mergePlan(
    _ controller: DeviceController, _ guid: GUID, _ wanted: MergeDirection?
  ) throws(ServiceError) -> JobPlan {
    guard let record = controller.now.record, let path = record.descriptor else {
      throw ServiceError(.snapshotNotFound, "there is no snapshot \(guid)", errno: "ENOENT")
    }
    let location = try roots.locate(path, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let descriptor = try read(location, in: folder)
    guard let child = try onlyChild(of: guid, descriptor) else {
      return JobPlan(
        clusters: 0, bytes: 0, requiredBytes: 0,
        freeBytes: try? controller.device().space()?.freeBytes)
    }
    let device = try controller.device()
    if let level = record.deltas.firstIndex(where: { $0.guid == guid.description }) {
      let chain = ChangeableChain(
        device: record.id, file: DescriptorFile(in: folder, name: location.name),
        location: location)
      let choice = try choose(
        wanted, for: guid, at: level, of: record, device, keeps: keepsFile(guid, chain))
      return Service.plan(choice, device, level)
    }
    let choice = try Service.onlyForward(wanted, "\(guid) is on another branch than the device's")
    let pair = try deltas(of: descriptor, to: child.guid, at: location).suffix(2)
    let files = try pair.map { (delta) throws(ServiceError) in
      let file = try roots.locate(delta.path, pointer: "")
      return (
        try roots.open(
          file, in: try roots.folder(of: file, pointer: ""), writable: false, pointer: ""),
        delta.isRaw
      )
    }
    guard files.count == 2 else {
      throw ServiceError(.nothingToMerge, "nothing lies below \(child.guid)")
    }
    let (count, source, receiver) = try converting { () throws(DeviceError) in
      (
        try DeltaMerge.count(from: files[0], into: files[1], like: device.geometry),
        try Device.status(of: files[0], like: device.geometry),
        try Device.status(of: files[1], like: device.geometry)
      )
    }
    return Service.plan(
      MergeChoice(
        direction: .forward, reason: choice,
        size: DeltaMerge.Size(clusters: count, newClusters: count)),
      device.geometry, from: source, into: receiver, in: try? files[1].0.space())
  }

  /// The same for a delta of a disk that has no descriptor yet: what lies below its top may be a part of
  /// other disks as well.
  func mergePlan(
    _ controller: DeviceController, level: Int, _ wanted: MergeDirection?
  ) throws(ServiceError) -> JobPlan {
    let device = try controller.device()
    guard let record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    return Service.plan(
      try choose(wanted, for: nil, at: level, of: record, device, keeps: true), device, level)
  }

  /// The parameters of a job that merges a snapshot away: what is chosen now stays chosen.
  func pinned(
    _ guid: GUID, _ wanted: MergeDirection?, _ controller: DeviceController
  ) throws(ServiceError) -> [String: JobValue] {
    var parameters = ["snapshot": JobValue.text(guid.description)]
    // There is none for a leaf, which is dropped.
    if let direction = try mergePlan(controller, guid, wanted).direction {
      parameters["direction"] = .text(direction)
    }
    return parameters
  }

  private static func plan(_ choice: MergeChoice, _ device: Device, _ level: Int) -> JobPlan {
    let levels = device.levels()
    let (source, receiver) = choice.direction == .forward ? (level, level + 1) : (level + 1, level)
    return plan(
      choice, device.geometry, from: levels[source], into: levels[receiver],
      in: device.space(level: receiver))
  }

  /// Bytes of disk that a snapshot's own file takes.
  func diskBytes(of guid: GUID, _ descriptor: Descriptor, _ chain: ChangeableChain) -> UInt64 {
    guard let shot = descriptor.shot(guid),
      let location = try? roots.resolve(shot.file, from: chain.location, pointer: ""),
      let folder = try? roots.folder(of: location, pointer: ""),
      let file = try? roots.open(location, in: folder, writable: false, pointer: "")
    else { return 0 }
    return (try? file.allocatedBytes()) ?? 0
  }

  /// Opens a branch that no device has, its last delta for writing, to merge into that.
  func openBranch(
    _ guid: GUID, _ descriptor: Descriptor, _ chain: ChangeableChain
  ) throws(ServiceError) -> Device {
    let plan = ChainPlan(
      deltas: try deltas(of: descriptor, to: guid, at: chain.location), readonly: false,
      descriptor: chain.location, snapshot: guid,
      clusterBytes: descriptor.clusterSectors * Geometry.sectorBytes,
      locks: try descriptorLock(of: chain).map { [$0] } ?? [])
    var options = AttachOptions()
    // A merge that a crash has interrupted left a mark of ours.
    options.repairSafely = true
    do throws(ServiceError) {
      return try openChain(plan, for: chain.device, options, mayHaveChildren: true)
    } catch {
      if let record = record(of: chain.device) { claimAnew(record) }
      throw error
    }
  }

  /// Closes a branch, whatever has become of its merge; its files are the device's no longer. What
  /// cannot be closed is repaired when it is opened next.
  func closeBranch(_ branch: Device?, of chain: ChangeableChain) {
    guard let branch else { return }
    do throws(DeviceError) {
      try branch.detach(until: .after(seconds: configuration.quiesceSeconds))
    } catch {
      log.warning(
        "a branch was not closed",
        metadata: ["descriptor": "\(chain.location.path)", "reason": "\(error.detail)"])
    }
    if let record = record(of: chain.device) { claimAnew(record) }
  }

  /// Removes a snapshot that nothing builds on.
  ///
  /// - Returns: bytes that were freed, or why that could not be written down; nil when something builds
  ///   on it, or an earlier attempt has merged or removed it.
  /// - Throws: when nothing was removed.
  func removeIfLeaf(
    _ guid: GUID, _ controller: DeviceController, job: String
  ) throws(ServiceError) -> Result<UInt64, ServiceError>? {
    let (_, chain) = try changeable(controller, ifRevision: nil, by: job)
    let descriptor = try read(chain.location, in: chain.file.folder)
    if descriptor.shot(guid) == nil, try existing(job).hasBeenTried { return nil }
    guard try onlyChild(of: guid, descriptor) == nil else { return nil }
    try requireDisposable(guid, chain)
    let removes = !keepsFile(guid, chain)
    let bytes = removes ? diskBytes(of: guid, descriptor, chain) : 0
    let made = try converting { () throws(DeviceError) in
      try change(chain, controller.id, nil).removeLeaf(guid, removingFile: removes)
    }
    do throws(ServiceError) {
      try ending(made, chain, controller) { (record, transaction) throws(ServiceError) in
        try transaction.note(
          .snapshotDeleted, guid.description, device: record.id,
          at: try transaction.nextRevision())
      }
      return .success(bytes)
    } catch { return .failure(error) }
  }
}
