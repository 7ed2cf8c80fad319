internal import Logging
internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// A disk that nobody has attached, to which a job gives the content of a point of a backup
/// (docs/crash-safety.md, "A restore into a disk").
///
/// Its snapshots stay. The new top lies over what the old one lay over, and has everything that is there.
/// Its image has a name that no other job's has, so without a journal beside it, it is whole.
struct ReplacedDisk {
  private let job: String
  private let service: Service
  private let location: Roots.Location
  private let file: DescriptorFile
  private let image: RestoredImage

  /// - Parameter path: of the disk's descriptor, `root:relative`.
  init(
    _ path: String, job: String, _ service: Service
  ) throws(ServiceError) {
    self.job = job
    self.service = service
    location = try service.roots.locate(path, pointer: RestoreJob.into)
    let folder = try service.roots.folder(of: location, pointer: RestoreJob.into)
    file = DescriptorFile(in: folder, name: location.name)
    image = RestoredImage(
      name: try service.read(location, in: folder).newFileName(GUID(named: job)), folder: folder,
      job: job, service: service)
  }

  /// Does all of it, or goes on where an earlier attempt was.
  func make(
    of backup: String, on target: String, _ control: JobControl
  ) throws(JobStop) -> [String: JobValue] {
    defer { service.state.withLock { $0.files.release(.job(job, of: job)) } }
    do throws(JobStop) {
      let lock = try failing { () throws(ServiceError) in try lockDescriptor() }
      defer { withExtendedLifetime(lock) {} }
      guard try failing({ () throws(ServiceError) in try !isReplaced() }) else {
        control.log(
          "\(location.path) has the content of \(backup): an earlier attempt has made it so")
        return ["descriptor": .text(location.path), "completed_earlier": .flag(true)]
      }
      let source = try service.source(backup, on: target, awaiting: control)
      let chain = try failing { () throws(ServiceError) in
        try service.replaceable(location, for: source.geometry)
      }
      let below = try failing { () throws(ServiceError) in try claim(chain, source.geometry) }
      try image.make(
        of: CoveringSource(source, over: below), on: target, over: below,
        isWhole: !image.isBegun && image.folder.contains(image.name), control
      ) { () throws(JobStop) in try control.commit() }
      try control.untilThereIsRoom { () throws(ServiceError) in
        try replace(chain, source.geometry, below, by: backup)
      }
      return RestoreJob.result(
        of: backup, on: target, source, ["descriptor": .text(location.path)])
    } catch {
      if !image.isKept(after: error) { remove() }
      throw error
    }
  }

  /// OpenVZ's tools change nothing meanwhile.
  private func lockDescriptor() throws(ServiceError) -> DescriptorLock? {
    do throws(LockError) {
      return try service.descriptorLocks.acquire(location.name, in: file.folder, exclusive: true)
    } catch { throw ServiceError(DeviceError(error)) }
  }

  /// Whether an earlier attempt has come to the end, and could not say so; what it left is ended.
  private func isReplaced() throws(ServiceError) -> Bool {
    try service.settle(file, at: location)
    let descriptor = try service.read(location, in: file.folder)
    return descriptor.shots.contains { $0.file == image.name }
  }

  /// Keeps everybody from the disk's files.
  ///
  /// - Returns: the clusters that lie below the top.
  private func claim(
    _ chain: ReplaceableChain, _ geometry: Geometry
  ) throws(ServiceError) -> Bitmap {
    let new = location.sibling(image.name)
    let lower = chain.lower.map { ($0.location, Optional($0.source.file.identity)) }
    try service.state.withLock { state throws(ServiceError) in
      let user = FileRegistry.User.job(job, of: job)
      state.files.release(user)
      try state.files.claim(lower + [(new, nil)], for: user, readonly: false)
      try state.files.claim(
        [(chain.top.location, chain.top.file?.identity)], for: user, readonly: false)
    }
    if let top = chain.top.file {
      do throws(LockError) { try ImageLock.acquire(top, for: .write) } catch {
        throw ServiceError(DeviceError(error))
      }
    }
    return try chain.mappedClusters(in: geometry)
  }

  // MARK: The end

  private func replace(
    _ chain: ReplaceableChain, _ geometry: Geometry, _ below: Bitmap, by backup: String
  ) throws(ServiceError) {
    let made = try converting { () throws(DeviceError) in
      let new = Geometry(
        version: .v2, clusterShift: geometry.clusterShift, sizeBytes: geometry.sizeBytes)
      let source = try DeltaSource(reading: image.name, in: image.folder)
      // Another program may have changed what lies below between two lives of the job.
      let own = try Device.mappedClusters(of: [source], in: new)
      guard below.runs.allSatisfy({ own.setCount(in: $0) == $0.count }) else {
        throw DeviceError(
          FormatError(.geometryMismatch, "the chain below it is another one than when it was made"),
          level: chain.lower.count, path: source.file.path)
      }
      return try change.replaceTop(
        by: image.name, geometry: new, "the disk was restored from the backup \(backup)")
    }
    if let top = chain.top.file { ImageLock.release(top) }
    do throws(DeviceError) { try change.end(made) } catch {
      // The change counts by now: the next one tries again.
      service.log.warning(
        "a file that is needed no longer was not removed",
        metadata: ["descriptor": "\(location.path)", "reason": "\(error)"])
    }
  }

  private var change: ChainChange {
    ChainChange(of: file, device: "job:\(job)", helpers: .engine(service.engine))
  }

  // MARK: What is left

  /// Removes the image, if the disk does not have it.
  func remove() {
    guard let descriptor = try? service.read(location, in: file.folder),
      !descriptor.shots.contains(where: { $0.file == image.name })
    else { return }
    image.remove()
  }
}

/// The files of a disk that is to get another top.
struct ReplaceableChain {
  /// Nil where it is missing, or cannot be opened: nobody needs it any more.
  let top: (location: Roots.Location, file: ImageFile?)
  /// Oldest first.
  let lower: [(location: Roots.Location, source: DeltaSource)]

  func mappedClusters(in geometry: Geometry) throws(ServiceError) -> Bitmap {
    // What is written is of version 2.
    let new = Geometry(
      version: .v2, clusterShift: geometry.clusterShift, sizeBytes: geometry.sizeBytes)
    return try converting { () throws(DeviceError) in
      try Device.mappedClusters(of: lower.map(\.source), in: new)
    }
  }
}

extension Service {
  /// A disk that nobody has attached and that can hold a point of a backup.
  ///
  /// - Throws: `backup-mismatch` where it cannot; as opening its files.
  func replaceable(
    _ location: Roots.Location, for geometry: Geometry
  ) throws(ServiceError) -> ReplaceableChain {
    let pointer = RestoreJob.into
    let descriptor = try read(
      location, in: try roots.folder(of: location, pointer: pointer))
    guard descriptor.clusterSectors == geometry.clusterSectors else {
      throw ServiceError(
        .backupMismatch,
        "the clusters of \(location.path) have \(descriptor.clusterSectors * Geometry.sectorBytes) bytes, those of the backup \(geometry.clusterBytes)",
        remedy: "restore to a new disk", pointer: pointer)
    }
    var deltas = try self.deltas(of: descriptor, to: descriptor.topGUID, at: location)
    guard let last = deltas.popLast() else {
      throw ServiceError(.imageUnreadable, "\(location.path) has no top", pointer: pointer)
    }
    let lower = try deltas.map { (delta) throws(ServiceError) in
      let place = try roots.locate(delta.path, pointer: pointer)
      let folder = try roots.folder(of: place, pointer: pointer)
      let file = try roots.open(place, in: folder, writable: false, pointer: pointer)
      return (
        location: place,
        source: DeltaSource(file: file, folder: folder, name: place.name, isRaw: delta.isRaw)
      )
    }
    let top = try roots.locate(last.path, pointer: pointer)
    let folder = try? roots.folder(of: top, pointer: pointer)
    return ReplaceableChain(
      top: (top, folder.flatMap { try? $0.open(top.name, writable: true) }), lower: lower)
  }

  /// - Throws: `image-in-use` with the device or the job that has the disk.
  func requireDetached(_ location: Roots.Location, pointer: String) throws(ServiceError) {
    let device = state.withLock { state in
      state.devices.values.first { controller in
        let record = controller.now.record
        return record?.descriptor == location.path && record?.snapshot == nil
      }?.id
    }
    if let device {
      throw ServiceError(
        .imageInUse, "\(location.path) is the disk of the device \(device)",
        remedy: "DELETE that device first", errno: "EBUSY",
        holder: ServiceError.Holder(kind: "device", id: device), pointer: pointer)
    }
    try requireNoRestore(into: location, pointer: pointer)
  }

  /// - Throws: `image-in-use` where a job, waiting or not, gives a disk other content.
  func requireNoRestore(into location: Roots.Location, pointer: String) throws(ServiceError) {
    guard let job = jobs.first(RestoreJob.type, where: "into", is: .text(location.path)) else {
      return
    }
    throw ServiceError(
      .imageInUse, "\(location.path) is being restored by the job \(job.id)",
      remedy: "wait for the job, or cancel it", errno: "EBUSY",
      holder: ServiceError.Holder(kind: "job", id: job.id), pointer: pointer)
  }
}

extension DeltaSource {
  fileprivate init(reading name: String, in folder: ImageFolder) throws(DeviceError) {
    do throws(IOError) {
      self.init(file: try folder.open(name, writable: false), folder: folder, name: name)
    } catch { throw DeviceError(error) }
  }
}
