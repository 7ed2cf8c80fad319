internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// A disk that a job makes of a point of a backup (docs/crash-safety.md, "A restore to a new disk").
///
/// When all is copied the job's record says that the image is its own: that is durable before the journal goes.
struct RestoredDisk {
  private let disk: RestoreJob.NewDisk
  private let job: String
  private let service: Service
  private let location: Roots.Location
  private let image: RestoredImage
  private var folder: ImageFolder { image.folder }

  /// Makes the disk's folder.
  init(
    _ disk: RestoreJob.NewDisk, job: String, _ service: Service
  ) throws(ServiceError) {
    self.disk = disk
    self.job = job
    self.service = service
    location = try service.restoredImage(of: disk)
    image = RestoredImage(
      name: location.name, folder: try service.roots.makeFolder(of: location, pointer: ""),
      job: job, service: service)
  }

  private var isOwn: Bool { (try? service.existing(job))?.ownsWhatItMakes == true }

  /// Does all of it, or goes on where an earlier attempt was.
  func make(
    of backup: String, on target: String, _ control: JobControl
  ) throws(JobStop) -> [String: JobValue] {
    if isAttached {
      control.log("the device \(disk.id) is there: an earlier attempt has made it")
      return ["device": .text(disk.id), "completed_earlier": .flag(true)]
    }
    do throws(JobStop) { try failing { () throws(ServiceError) in try claim() } } catch {
      // Whatever lies there is not this job's.
      release()
      throw error
    }
    do throws(JobStop) {
      let source = try service.source(backup, on: target, awaiting: control)
      try image.make(
        of: source, on: target, isWhole: isOwn && !image.isBegun, control
      ) { () throws(JobStop) in try commit(control) }
      try control.untilThereIsRoom { () throws(ServiceError) in try describe(source.geometry) }
      try control.untilThereIsRoom { () throws(ServiceError) in try attach() }
      return RestoreJob.result(
        of: backup, on: target, source, ["device": .text(disk.id)])
    } catch {
      if !image.isKept(after: error, isOwn: isOwn) {
        remove()
        if !folder.contains(image.name) { control.own(false) }
      }
      release()
      throw error
    }
  }

  private func release() {
    if !isAttached { service.state.withLock { $0.files.releaseAll(of: disk.id) } }
  }

  /// An earlier attempt has come to the end, and could not say so.
  private var isAttached: Bool {
    service.record(of: disk.id)?.deltas.last?.path == location.path
  }

  /// The place is the disk's own from now on: nobody else makes or attaches anything there.
  private func claim() throws(ServiceError) {
    try service.requireNobodyRestores(to: location, before: job)
    try service.state.withLock { state throws(ServiceError) in
      try state.files.claim([(location, nil)], for: .device(disk.id), readonly: false)
    }
    let record = try service.existing(job)
    guard record.ownsWhatItMakes != true, !(record.hasBeenTried && image.isBegun) else { return }
    try service.requireNothing(at: location)
  }

  /// From here on the image is known for the job's own by this alone.
  private func commit(_ control: JobControl) throws(JobStop) {
    try control.commit()
    control.own(true)
    guard isOwn else {
      throw .failed(ServiceError(.ioError, "the state cannot be written", errno: "EIO"))
    }
  }

  // MARK: The end

  /// Gives the image its descriptor; may be repeated.
  private func describe(_ geometry: Geometry) throws(ServiceError) {
    guard !folder.contains(Descriptor.fileName) else { return }
    try converting { () throws(DeviceError) in
      try DescriptorFile(in: folder).replace(with: Descriptor(new: geometry, file: image.name))
    }
  }

  private func attach() throws(ServiceError) {
    let path = location.sibling(Descriptor.fileName).path
    var request = AttachRequest(
      id: disk.id, source: .descriptor(AttachRequest.DescriptorReference(path: path)))
    request.exportName = disk.export
    request.caller = "job:\(job)"
    let controller = try service.reserve(disk.id, by: job)
    do throws(ServiceError) {
      _ = try controller.runAndWait { [service, request] () throws(ServiceError) in
        try service.open(request, controller, keeping: nil)
      }
    } catch {
      service.forget(disk.id)
      throw error
    }
  }

  // MARK: What is left

  /// Removes what the job has made, if it is its own and nobody has it open.
  func remove() {
    guard image.isBegun || isOwn, !isAttached else { return }
    let descriptor = Descriptor.fileName
    image.remove(with: [descriptor, "\(descriptor).tmp", "\(descriptor).lck"])
  }
}
