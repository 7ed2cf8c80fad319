internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What a job copies, opened for as long as it does.

extension Service {
  /// The origin as a job's parameters have it: the same whatever roots there are later.
  func pinned(_ origin: CopyOrigin) throws(ServiceError) -> CopyOrigin {
    if case .nbd(let uri, _) = origin { try requireAddress(uri, pointer: "/params/from/nbd") }
    guard case .image(var image) = origin else { return origin }
    image.path = try roots.locate(image.path, pointer: OriginImage.pointer).path
    return .image(image)
  }

  /// Opens what does not change while `body` runs: anything but a live device.
  ///
  /// - Parameters:
  ///   - version: of the image that is made; nil for the origin's own.
  ///   - job: that reads it.
  func reading<Result, Failure: Error>(
    _ origin: CopyOrigin, as version: ImageVersion?, for job: String,
    failing convert: (ServiceError) -> Failure,
    _ body: (RestoreSource) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    func opening<Opened>(
      _ open: () throws(ServiceError) -> Opened
    ) throws(Failure) -> Opened {
      do throws(ServiceError) { return try open() } catch { throw convert(error) }
    }
    func read(_ source: any BackupSource) throws(Failure) -> Result {
      try body(
        opening { () throws(ServiceError) in
          try RestoreSource(as: version, isRounded: !(source is DeviceSource)) { (nil, source) }
        })
    }
    switch origin {
    case .device(let id, let snapshot?):
      let controller = try opening { () throws(ServiceError) in try self.controller(id) }
      return try withSnapshot(snapshot, for: job, of: controller, failing: convert) {
        (snapshot) throws(Failure) in try read(DeviceSource(snapshot.device))
      }
    case .device(let id, nil):
      return try read(
        DeviceSource(opening { () throws(ServiceError) in try readOnlyDevice(id) }))
    case .backup(let backup, let target):
      return try body(
        opening { () throws(ServiceError) in
          try source(backup, on: target, as: version, pointer: "/params/from/backup")
        })
    case .image(let image):
      return try withImage(image, for: job, failing: convert) { (source) throws(Failure) in
        try read(source)
      }
    case .nbd(let uri, let shift):
      return try body(
        opening { () throws(ServiceError) in
          let options = try nbdOptions(uri, nil)
          return try RestoreSource(as: version, isRounded: true) { () throws(ServiceError) in
            (
              nil,
              try backingUp { () throws(BackupError) in
                try ExportSource(nbd: uri, options, clusterShift: shift)
              }
            )
          }
        })
    }
  }

  private func readOnlyDevice(_ id: String) throws(ServiceError) -> Device {
    let device = try controller(id).device()
    guard device.isReadOnly else {
      throw ServiceError(.deviceBusy, "the device \(id) is written meanwhile", errno: "EBUSY")
    }
    return device
  }

  // MARK: Files

  private func withImage<Result, Failure: Error>(
    _ image: OriginImage, for job: String, failing convert: (ServiceError) -> Failure,
    _ body: (any BackupSource) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let user = FileRegistry.User.job(job, of: job)
    defer { state.withLock { $0.files.release(user) } }
    let opened: OpenedImage
    do throws(ServiceError) { opened = try open(image, for: user) } catch { throw convert(error) }
    defer { opened.close(until: .after(seconds: configuration.quiesceSeconds)) }
    return try body(opened.source)
  }

  private func open(
    _ image: OriginImage, for user: FileRegistry.User
  ) throws(ServiceError) -> OpenedImage {
    let pointer = OriginImage.pointer
    let location = try roots.locate(image.path, pointer: pointer)
    guard !location.name.hasSuffix(".xml") else {
      return try openDisk(image, at: location, for: user)
    }
    guard image.snapshot == nil else {
      throw ServiceError(
        .valueImpossible, "\(location.path) is no descriptor, and has no snapshots",
        pointer: "/params/from/snapshot")
    }
    let folder = try roots.folder(of: location, pointer: pointer)
    let file = try roots.open(location, in: folder, writable: false, pointer: pointer)
    try state.withLock { state throws(ServiceError) in
      try state.files.claim([(location, file.identity)], for: user, readonly: true)
    }
    switch try image.format(of: file) {
    case .raw:
      return OpenedImage(
        source: try backingUp { () throws(BackupError) in
          try ExportSource(try RawFileExport(file), clusterShift: image.clusterShift)
        }, device: nil)
    case .ploop:
      return try openDisk(
        [DeltaSource(file: file, folder: folder, name: location.name)], AttachOptions())
    case .qcow2:
      try image.requireAlone(file)
      return OpenedImage(
        source: try backingUp { () throws(BackupError) in
          try ExportSource(try NBDProgram.serve(file, .qcow2), clusterShift: image.clusterShift)
        }, device: nil)
    }
  }

  private func openDisk(
    _ image: OriginImage, at location: Roots.Location, for user: FileRegistry.User
  ) throws(ServiceError) -> OpenedImage {
    let chain = try plan(descriptor: location.path, at: image.snapshot, readonly: true)
    var options = AttachOptions()
    options.clusterBytes = chain.clusterBytes
    options.descriptorLocks = chain.locks
    return try openDisk(try claim(chain, for: user), options)
  }

  private func openDisk(
    _ sources: [DeltaSource], _ options: AttachOptions
  ) throws(ServiceError) -> OpenedImage {
    var options = options
    options.readonly = true
    options.indexCache = indexCache
    let device = try converting { [options] () throws(DeviceError) in
      try Device.attach(sources, options)
    }
    return OpenedImage(source: DeviceSource(device), device: device)
  }
}

/// A file that is read as a disk.
private struct OpenedImage {
  let source: any BackupSource
  /// Nil for one that is no image of ours.
  let device: Device?

  func close(until deadline: Deadline) { try? device?.detach(until: deadline) }
}

extension OriginImage {
  static let pointer = "/params/from/image"
  private static let qcow2Magic: [UInt8] = [0x51, 0x46, 0x49, 0xFB]

  /// Bytes of a qcow2 header that are looked at, and where in it other files are named: an image that somebody has
  /// made may name any file of this machine, which is not to be read for him.
  private static let qcow2HeaderBytes = 104
  private static let qcow2ExternalData: UInt8 = 1 << 2

  /// - Throws: `image-invalid` where it names other files, or nobody here can read it.
  fileprivate func requireAlone(_ file: ImageFile) throws(ServiceError) {
    func refused(_ detail: String, _ remedy: String) -> ServiceError {
      ServiceError(
        .imageInvalid, "\(file.path) \(detail)", remedy: remedy, pointer: OriginImage.pointer)
    }
    guard NBDProgram.isInstalled else {
      throw refused(
        "is in QEMU's format qcow2, and qemu-nbd is not installed",
        "install QEMU's tools, or convert it with qemu-img elsewhere")
    }
    let buffer = AlignedBuffer(count: OriginImage.qcow2HeaderBytes)
    do throws(IOError) { try file.readOrZero(into: buffer.region, at: 0) } catch {
      throw ServiceError(error)
    }
    let bytes = buffer.region.bytes
    guard bytes.starts(with: OriginImage.qcow2Magic) else {
      throw refused("is no image in QEMU's format qcow2", "name its format")
    }
    let version = bytes[4..<8].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    let hasBacking = bytes[8..<16].contains { $0 != 0 }
    let hasExternalData = version > 2 && bytes[79] & OriginImage.qcow2ExternalData != 0
    guard !hasBacking, !hasExternalData else {
      throw refused(
        "names another file that it needs", "make one file of it with qemu-img convert")
    }
  }

  /// What a file says that it is, unless the request knows better.
  ///
  /// - Throws: `value-impossible` for one that may be anything: it is taken for raw only where it is said to be.
  fileprivate func format(of file: ImageFile) throws(ServiceError) -> Format {
    if let format { return format }
    let buffer = AlignedBuffer(count: Header.byteCount)
    do throws(IOError) { try file.readOrZero(into: buffer.region, at: 0) } catch {
      throw ServiceError(error)
    }
    let bytes = buffer.region.bytes
    if (try? Header(parsing: bytes)) != nil { return .ploop }
    if bytes.starts(with: OriginImage.qcow2Magic) { return .qcow2 }
    throw ServiceError(
      .valueImpossible, "\(file.path) does not say what it is",
      remedy: "if it is a disk's bytes as they are, say so: \"format\":\"raw\"",
      pointer: "/params/from/format")
  }
}
