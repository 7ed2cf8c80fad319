internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// A disk that a job makes (docs/crash-safety.md, "A restore to a new disk"): of a point of a backup, of
/// another disk, a file or an export; or over a snapshot of another disk, whose files it shares.
///
/// When all is copied the job's record says that the image is its own: that is durable before the journal goes.
struct RestoredDisk {
  private let disk: MadeDisk
  private let job: String
  private let service: Service
  private let location: Roots.Location
  private let image: RestoredImage
  private var folder: ImageFolder { image.folder }
  private var descriptor: Roots.Location { location.sibling(Descriptor.fileName) }

  /// Makes the disk's folder.
  init(
    _ disk: MadeDisk, job: String, _ service: Service
  ) throws(ServiceError) {
    self.disk = disk
    self.job = job
    self.service = service
    location = try service.image(of: disk)
    image = RestoredImage(
      name: location.name, folder: try service.roots.makeFolder(of: location, pointer: ""),
      job: job, service: service)
  }

  /// Does all of it, or goes on where an earlier attempt was.
  ///
  /// - Parameter base: the snapshot over which the disk is to lie; then nothing is copied.
  func make(
    from origin: CopyOrigin, over base: LinkedBase? = nil, _ control: JobControl
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
      let source = try image.make(
        of: origin, as: disk.version, isEmpty: base != nil, control)
      try control.untilThereIsRoom { () throws(ServiceError) in
        try describe(source.geometry, over: base)
      }
      try control.untilThereIsRoom { () throws(ServiceError) in try attach() }
      return [
        "device": .text(disk.id), "clusters_copied": .number(source.clusters),
        "bytes_read": .number(source.clusters * source.geometry.clusterBytes),
      ]
    } catch {
      if !image.isKept(after: error, isOwn: image.isOwn) {
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
    try service.requireNobodyMakes(location, before: job)
    try service.state.withLock { state throws(ServiceError) in
      try state.files.claim([(location, nil)], for: .device(disk.id), readonly: false)
    }
    let record = try service.existing(job)
    guard record.ownsWhatItMakes != true, !(record.hasBeenTried && image.isBegun) else { return }
    try service.requireNothing(at: location)
  }

  // MARK: The end

  /// Gives the image its descriptor; may be repeated.
  private func describe(_ geometry: Geometry, over base: LinkedBase?) throws(ServiceError) {
    guard !folder.contains(Descriptor.fileName) else { return }
    let file = DescriptorFile(in: folder)
    guard let base else {
      return try converting { () throws(DeviceError) in
        try file.replace(with: Descriptor(new: geometry, file: image.name))
      }
    }
    try service.link(file, at: descriptor, image.name, over: base, geometry)
  }

  private func attach() throws(ServiceError) {
    var request = AttachRequest(
      id: disk.id, source: .descriptor(AttachRequest.DescriptorReference(path: descriptor.path)))
    request.exportName = disk.export
    request.exportAccess = disk.access
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
    guard image.isBegun || image.isOwn, !isAttached else { return }
    let name = Descriptor.fileName
    image.remove(with: [name, "\(name).tmp", "\(name).lck", "\(name).notes"])
  }
}
