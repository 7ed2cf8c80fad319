internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// A disk that becomes larger: who may ask for it, and what is written down. The work is a job (ResizeJob).

/// What has become of a request for a larger disk.
package enum Resizing: Sendable {
  /// The disk has the size.
  case done(DeviceInfo)
  /// A job makes it so, which may have been there already.
  case job(JobInfo)
}

/// A resize that has begun.
struct BegunResize: Sendable {
  let resize: Resize
  /// Nil for a disk that has no descriptor, and needs none for this.
  let chain: ChangeableChain?
}

extension Service {
  /// Has a job make a disk larger, unless it has the size already, or a job of the same size is there.
  package func resize(
    _ id: String, to sizeBytes: UInt64, ifRevision: UInt64?
  ) async throws(ServiceError) -> Resizing {
    try requireServing()
    let controller = try controller(id)
    return try await controller.run { () throws(ServiceError) in
      let device = try self.resizable(controller, to: sizeBytes, ifRevision: ifRevision)
      guard device.geometry.sizeBytes < sizeBytes else {
        return .done(self.info(of: controller))
      }
      if let job = self.resizeJob(of: id, to: sizeBytes) { return .job(job) }
      try self.requireFree(controller)
      return .job(try self.add(Service.resizeRequest(id, sizeBytes), keeping: nil))
    }
  }

  /// What a larger disk would take, without beginning it.
  package func planResize(
    _ id: String, to sizeBytes: UInt64, ifRevision: UInt64?
  ) async throws(ServiceError) -> JobPlan {
    try requireServing()
    let controller = try controller(id)
    try await controller.run { () throws(ServiceError) in
      _ = try self.resizable(controller, to: sizeBytes, ifRevision: ifRevision)
    }
    return try await planJob(Service.resizeRequest(id, sizeBytes))
  }

  private static func resizeRequest(_ id: String, _ sizeBytes: UInt64) -> JobRequest {
    var request = JobRequest(type: ResizeJob.type, device: id)
    request.parameters["size"] = .number(sizeBytes)
    return request
  }

  private func resizable(
    _ controller: DeviceController, to sizeBytes: UInt64, ifRevision: UInt64?
  ) throws(ServiceError) -> Device {
    let (device, record) = try writable(controller)
    try Service.require(ifRevision, is: record.revision)
    try converting { () throws(DeviceError) in
      _ = try Resize.target(of: device.geometry, sizeBytes: sizeBytes)
    }
    return device
  }

  private func resizeJob(of device: String, to sizeBytes: UInt64) -> JobInfo? {
    let job = jobs.state.withLock { state in
      state.jobs.values.first {
        $0.device == device && $0.type == ResizeJob.type
          && $0.parameters["size"] == .number(sizeBytes)
      }
    }
    return job.map(info)
  }

  // MARK: For the job

  /// What can be said of the size at once: what has to be moved is known behind the check of the disk's index.
  func requireResizable(
    _ controller: DeviceController, to sizeBytes: UInt64
  ) throws(ServiceError) {
    _ = try resizable(controller, to: sizeBytes, ifRevision: nil)
  }

  /// What is moved, and the room that it takes.
  func resizePlan(
    _ controller: DeviceController, to sizeBytes: UInt64
  ) throws(ServiceError) -> JobPlan {
    let (device, _) = try writable(controller)
    try requireChecked(device)
    let cost = try converting { () throws(DeviceError) in
      try Resize.cost(in: device, to: sizeBytes)
    }
    let bytes = cost.clusters * device.geometry.clusterBytes
    let space = device.space()
    var plan = JobPlan(
      clusters: cost.clusters, bytes: bytes, requiredBytes: bytes + cost.indexBytes,
      freeBytes: space?.freeBytes)
    guard space?.copiesTakeRoom == true, let top = device.levels().last else { return plan }
    plan.leastBytes = bytes - min(bytes, top.idleBytes(device.geometry))
    return plan
  }

  /// - Returns: nil when the disk has the size, which only a job that ran before can meet.
  func beginResize(
    _ controller: DeviceController, to sizeBytes: UInt64, job: String
  ) throws(ServiceError) -> BegunResize? {
    try requireFree(controller, but: job)
    let (device, record) = try writable(controller)
    let chain = record.descriptor == nil ? nil : try described(controller).1
    guard device.geometry.sizeBytes != sizeBytes else {
      completeResize(of: device, describedBy: chain?.file)
      try noteSize(of: device, controller)
      return nil
    }
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    let resize = try converting { () throws(DeviceError) in
      guard let chain else { return try Resize(of: device, to: sizeBytes, until: deadline) }
      return try change(chain, controller.id, nil).beginResize(
        device, to: sizeBytes, until: deadline)
    }
    return BegunResize(resize: resize, chain: chain)
  }

  /// Makes the disk larger, writes that down, and shows new clients the new size.
  ///
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: `insufficient-space` and others, where it may be tried again.
  func finish(
    _ begun: BegunResize, _ controller: DeviceController
  ) throws(ServiceError) -> UInt64 {
    let device = try controller.device()
    guard device.geometry.sizeBytes != begun.resize.sizeBytes else {
      // Only its descriptor was behind.
      completeResize(of: device, describedBy: begun.chain?.file)
      try noteSize(of: device, controller)
      return 0
    }
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    let pause: UInt64
    do throws(DeviceError) {
      if let chain = begun.chain {
        pause = try change(chain, controller.id, nil).finish(begun.resize, until: deadline)
      } else {
        pause = try begun.resize.finish(descriptor: nil, until: deadline)
      }
    } catch {
      writeFailure(of: controller)
      // Its descriptor alone may be behind.
      if device.geometry.sizeBytes == begun.resize.sizeBytes {
        try noteSize(of: device, controller)
      }
      throw ServiceError(error)
    }
    try noteSize(of: device, controller)
    log.info(
      "grown",
      metadata: ["device": "\(controller.id)", "size": "\(begun.resize.sizeBytes)"])
    return pause
  }

  /// The disk keeps its size. What could not be given back is kept from use until the next attach.
  func abandon(_ begun: BegunResize) {
    do throws(DeviceError) {
      try begun.resize.abandon(until: .after(seconds: configuration.quiesceSeconds))
    } catch {
      log.warning("a resize was not given up", metadata: ["reason": "\(error.detail)"])
    }
  }

  private func noteSize(
    of device: Device, _ controller: DeviceController
  ) throws(ServiceError) {
    guard var record = controller.now.record, record.sizeBytes != device.geometry.sizeBytes else {
      return
    }
    record.sizeBytes = device.geometry.sizeBytes
    do throws(ServiceError) {
      try commit(
        record, of: controller, as: .deviceChanged,
        show: { renewDoors(of: record, to: device, controller) }
      ) { _, _ throws(ServiceError) in }
    } catch {
      // It has grown all the same.
      controller.keep(record)
      renewDoors(of: record, to: device, controller)
      throw error
    }
  }

  /// Clients that come now see the disk as large as it is; those inside keep what they were told.
  private func renewDoors(
    of record: DeviceRecord, to device: Device, _ controller: DeviceController
  ) {
    for export in record.exports where export.snapshot == nil {
      table.renew(
        export.name,
        DeviceExport(
          device, readonly: export.readonly, summary: export.summary,
          throttle: controller.throttle, lease: fleet?.lease(of: controller.id)))
    }
  }

  // MARK: At an attach

  /// A resize that was cut short behind its last write leaves a descriptor that is behind. The disk is
  /// right in any case; who cannot mend its descriptor tries again at the next attach.
  func completeResize(of device: Device, describedBy file: DescriptorFile?) {
    guard let file else { return }
    do throws(DeviceError) {
      guard try ChainChange.completeResize(file, of: device) else { return }
      log.info("a resize was completed", metadata: ["descriptor": "\(file.path)"])
    } catch {
      log.warning(
        "a descriptor has another size than its disk",
        metadata: ["descriptor": "\(file.path)", "reason": "\(error.detail)"])
    }
  }
}
