internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// A disk that a job is to make of another one, or of a backup, a file or an export.
struct MadeDisk: Equatable, Sendable {
  static let pointer = "/params/to"
  static let directoryPointer = "\(pointer)/directory"

  var id: String
  /// `root:relative`.
  var directory: String
  /// The name of a door to it, if it is to have one.
  var export: String?
  /// Who may come in by it; nil for everybody.
  var access: ExportAccess?
  /// Of its image; nil for that of what is copied, or 2.
  var version: ImageVersion?

  init(_ to: JobParameters) throws(ServiceError) {
    var to = to
    id = try to.requiredName("id")
    directory = try to.requiredText("directory")
    export = try to.name("export")
    access = try to.access(of: export)
    version = try to.version()
    try to.finish()
  }

  var value: JobValue {
    var members = ["id": JobValue.text(id), "directory": .text(directory)]
    members["export"] = export.map(JobValue.text)
    members["access"] = access?.value
    members["version"] = version.map { .number(UInt64($0.rawValue)) }
    return .object(members)
  }
}

extension JobParameters {
  mutating func version() throws(ServiceError) -> ImageVersion? {
    guard let number = try number("version") else { return nil }
    guard let version = ImageVersion(rawValue: Int(clamping: number)) else {
      throw wrong("version", "1 or 2 is expected")
    }
    return version
  }
}

extension Service {
  /// The image of a disk that is made, called as OpenVZ's tools have it.
  func image(of disk: MadeDisk) throws(ServiceError) -> Roots.Location {
    try roots.locate(disk.directory, pointer: MadeDisk.directoryPointer).appending(
      Service.imageName)
  }

  /// The disk as a job's parameters have it: in the same place whatever roots there are later.
  func pinned(_ disk: MadeDisk) throws(ServiceError) -> JobValue {
    var disk = disk
    disk.directory = try roots.locate(disk.directory, pointer: MadeDisk.directoryPointer).path
    return disk.value
  }

  /// Where a disk's image will be, which nobody else has or is to have.
  ///
  /// - Throws: `device-exists`, `export-exists`, `image-exists`; `value-impossible` where its export could let nobody in.
  func place(for disk: MadeDisk) throws(ServiceError) -> Roots.Location {
    if let access = disk.access { try require(access, within: MadeDisk.pointer) }
    try requireUnknown(disk)
    let location = try image(of: disk)
    try requireNobodyMakes(location)
    try requireNothing(at: location)
    return location
  }

  /// - Throws: `device-exists`, also where another job is to make it; `export-exists`.
  private func requireUnknown(_ disk: MadeDisk) throws(ServiceError) {
    if state.withLock({ $0.devices[disk.id] }) != nil {
      throw ServiceError(
        .deviceExists, "the device \(disk.id) exists", errno: "EEXIST", pointer: "/params/to/id")
    }
    if let maker = jobs.maker(of: disk.id) {
      throw ServiceError(
        .deviceExists, "the device \(disk.id) is being made by the job \(maker.id)",
        errno: "EEXIST", holder: ServiceError.Holder(kind: "job", id: maker.id),
        pointer: "/params/to/id")
    }
    if let export = disk.export, let entry = table.entry(export) {
      throw ServiceError(
        .exportExists, "the export \(export) exists, for the device \(entry.device)",
        errno: "EEXIST", holder: ServiceError.Holder(kind: "device", id: entry.device),
        pointer: "/params/to/export")
    }
  }

  /// - Parameter job: which asks; one that has come after it is not in its way.
  /// - Throws: `image-exists` where a job, waiting or not, is to make the same image.
  func requireNobodyMakes(
    _ location: Roots.Location, before job: String? = nil
  ) throws(ServiceError) {
    for other in jobs.makers() where job.map({ other.id < $0 }) ?? true {
      guard case .object(let to)? = other.parameters["to"],
        case .text(let directory)? = to["directory"],
        let place = try? roots.locate(directory, pointer: MadeDisk.directoryPointer),
        place.appending(Service.imageName).path == location.path
      else { continue }
      throw ServiceError(
        .imageExists, "the job \(other.id) makes a disk in \(directory)",
        remedy: "choose another directory", errno: "EEXIST",
        holder: ServiceError.Holder(kind: "job", id: other.id), pointer: MadeDisk.directoryPointer)
    }
  }

  /// - Throws: `image-exists` where a disk, or the beginning of one, is in the way.
  func requireNothing(at location: Roots.Location) throws(ServiceError) {
    // A folder that is not there yet has nothing in it.
    guard let folder = try? roots.folder(of: location, pointer: MadeDisk.directoryPointer) else {
      return
    }
    for name in [location.name, FileTarget.journal(of: location.name), Descriptor.fileName]
    where folder.contains(name) {
      throw ServiceError(
        .imageExists, "\(location.sibling(name).path) exists",
        remedy: "attach it, or choose another directory", errno: "EEXIST",
        pointer: MadeDisk.directoryPointer)
    }
  }
}
