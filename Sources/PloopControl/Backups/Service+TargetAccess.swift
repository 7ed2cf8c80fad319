internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// A target that has been opened.
enum OpenTarget: Sendable {
  case directory(DirectoryTarget)
  case single(any SinglePointTarget)
}

extension Service {
  /// - Parameter pointer: to the member of a request that names it.
  /// - Throws: `target-not-found`.
  func existing(
    target name: String, pointer: String? = nil
  ) throws(ServiceError) -> Target {
    guard let entry = targets.entry(name) else {
      throw ServiceError(
        .targetNotFound, "there is no target \(name.prefix(80))", errno: "ENOENT", pointer: pointer)
    }
    return entry.target
  }

  /// Opens a target. It may wait for a disk, or for what is mounted there.
  ///
  /// - Throws: `target-not-found`; `target-unreachable`, also where its folder is another one by now;
  ///   `insufficient-space`.
  func open(target name: String, pointer: String? = nil) throws(ServiceError) -> OpenTarget {
    try open(try existing(target: name, pointer: pointer))
  }

  func open(_ target: Target) throws(ServiceError) -> OpenTarget {
    try reaching { () throws(ServiceError) in
      switch target.place {
      case .directory(let path):
        let folder = try roots.folder(at: try roots.locate(path, pointer: ""), pointer: "")
        try require(target.mark, of: folder)
        return .directory(DirectoryTarget(in: folder, locks: descriptorLocks))
      case .file(let path, let format):
        let location = try roots.locate(path, pointer: "")
        let folder = try roots.folder(of: location, pointer: "")
        try require(target.mark, of: folder)
        return .single(
          FilePointTarget(
            location.name, in: folder, as: format == .raw ? .raw : .image,
            records: try records("files", of: "\(format.rawValue) \(path)")))
      case .nbd(let uri):
        return .single(
          NBDTarget(uri, try nbdOptions(uri, target.tls), records: try records("exports", of: uri)))
      }
    }
  }

  /// Makes the folder of a place that is to be a target, with its parents.
  ///
  /// - Returns: its mark, which a folder keeps; nil where there is none.
  func prepare(_ place: TargetPlace) throws(ServiceError) -> String? {
    try reaching { () throws(ServiceError) in
      let folder: ImageFolder
      switch place {
      case .directory(let path):
        folder = try roots.makeFolder(at: try roots.locate(path, pointer: ""), pointer: "")
      case .file(let path, _):
        folder = try roots.makeFolder(of: try roots.locate(path, pointer: ""), pointer: "")
      case .nbd: return nil
      }
      // One at a time: of two that find none, the second would replace the first one's.
      return try targets.marking.withLock { _ throws(ServiceError) in
        try backingUp { () throws(BackupError) in try TargetMark.make(ULID.make(), in: folder) }
      }
    }
  }

  /// Without its mark a folder is another one: perhaps nothing is mounted there, and what is copied would
  /// fill the disk beneath.
  private func require(_ mark: String?, of folder: ImageFolder) throws(ServiceError) {
    guard let mark else { return }
    let found = try backingUp { () throws(BackupError) in try TargetMark.read(in: folder) }
    guard found != mark else { return }
    throw ServiceError(
      .targetUnreachable,
      "\(folder.path) is not the folder that the target was made with: \(TargetMark.fileName) is \(found == nil ? "missing" : "another one")",
      cause: "target-mismatch",
      remedy: "mount what belongs there; to use this one, DELETE the target and POST it again")
  }

  private func reaching<Result>(
    _ body: () throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    do throws(ServiceError) { return try body() } catch {
      guard error.code != .insufficientSpace, error.code != .targetUnreachable else { throw error }
      throw ServiceError(unreachable: error)
    }
  }

  /// The backup that an image is, of a target or of a job that alone named the place, and that nobody has changed
  /// since.
  func keptBackup(at location: Roots.Location) -> String? {
    let place = "\(TargetPlace.FileFormat.ploop.rawValue) \(location.path)"
    let records = "files/\(RecordPruning.folderName(of: place))"
    // Looked for first: whoever asks makes no folder.
    guard (try? store.folder.folder(beneath: records)) != nil,
      case .single(let single)? = try? open(
        Target(
          name: location.path, place: .file(path: location.path, format: .ploop), createdAt: 0)),
      let points = try? single.points()
    else { return nil }
    return points.first { $0.state == .whole }?.id
  }

  /// What is known of the backup in a place that has no names for it. Whatever name the target has, and
  /// whoever forgets it, it is the same, until nobody can find it any more (``RecordPruning``).
  func records(_ kind: String, of place: String) throws(ServiceError) -> ImageFolder {
    do throws(IOError) {
      let folder = try store.folder.makeFolder(
        beneath: "\(kind)/\(RecordPruning.folderName(of: place))")
      if !folder.contains(RecordPruning.placeFile) {
        try folder.replace(RecordPruning.placeFile, with: Array(place.utf8))
      }
      return folder
    } catch { throw ServiceError(error) }
  }
}

extension ServiceError {
  /// A target is there by name, and what it names cannot be used.
  init(unreachable error: ServiceError) {
    self.init(
      .targetUnreachable, error.detail, cause: error.cause ?? error.code.rawValue,
      errno: error.errno)
  }

  /// Clusters that are named to people; all of them are told to machines.
  private static let clustersNamed = 8
  private static let clustersTold = 1_000

  init(_ error: BackupError) {
    switch error.kind {
    case .source: self.init(.ioError, error.detail, errno: "EIO")
    case .rotten(let cluster): self.init(rotten: cluster, error.detail)
    case .target: self.init(.targetUnreachable, error.detail)
    case .outOfSpace: self.init(.insufficientSpace, error.detail, errno: "ENOSPC")
    case .locked:
      self.init(
        .imageInUse, error.detail, cause: "a job or another program has it open", errno: "EBUSY")
    case .exists: self.init(.imageExists, error.detail, errno: "EEXIST")
    case .notFound: self.init(.backupNotFound, error.detail, errno: "ENOENT")
    case .mismatch: self.init(.backupMismatch, error.detail)
    case .corrupt(let clusters):
      let named = clusters.prefix(ServiceError.clustersNamed).map(String.init)
      let words =
        clusters.isEmpty
        ? ""
        : " (clusters \(named.joined(separator: ", "))\(clusters.count > named.count ? ", …" : ""))"
      self.init(
        .backupCorrupt, error.detail + words, errno: "EIO",
        facts: clusters.isEmpty
          ? [:] : ["clusters": .numbers(Array(clusters.prefix(ServiceError.clustersTold)))])
    case .hasDependents(let backups):
      self.init(.backupHasDependents, error.detail, facts: ["backups": .texts(backups)])
    case .chainIsFull: self.init(.tooManyDeltas, error.detail, errno: "EMFILE")
    case .failed: self.init(.ioError, error.detail, errno: "EIO")
    }
  }
}

/// Calls PloopBackup and converts its errors.
func backingUp<Result>(
  _ body: () throws(BackupError) -> Result
) throws(ServiceError) -> Result {
  do throws(BackupError) { return try body() } catch { throw ServiceError(error) }
}
