internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// Where one backup is copied to: a point of a chain, the file of a target, or an export. It can be opened again and
/// again, each time where it was committed last.
protocol BackupPlace {
  var service: Service { get }
  /// The target, by name.
  var target: String { get }

  /// - Throws: `image-exists` when it is whole.
  func open() throws(ServiceError) -> any BackupSink

  /// - Throws: `insufficient-space` where less is free.
  func requireRoom(_ bytes: UInt64) throws(ServiceError)

  /// Why a step failed.
  func failure(_ error: BackupError) -> ServiceError
}

extension BackupPlace {
  /// What is waited for where the target fails; nil for what will not pass.
  func blocker(_ error: ServiceError) -> JobBlocker? {
    switch error.code {
    case .insufficientSpace: JobBlocker(kind: .space, id: nil, detail: error.detail)
    case .targetUnreachable, .imageInUse:
      JobBlocker(kind: .target, id: target, detail: error.detail)
    default: nil
    }
  }

  func failure(_ error: BackupError) -> ServiceError { ServiceError(error) }

  fileprivate func requireRoom(_ bytes: UInt64, in folder: ImageFolder?) throws(ServiceError) {
    try Service.requireSpace(
      bytes, of: try? folder?.space().freeBytes, for: "the target \(target)")
  }
}

/// A point of a chain.
final class PointPlace: BackupPlace {
  let service: Service
  let target: String
  let chain: String
  let manifest: PointManifest
  private let wanted: Bitmap?
  private var hasBegun = false

  init(
    _ service: Service, _ target: String, _ chain: String, _ manifest: PointManifest,
    wanted: Bitmap? = nil
  ) {
    self.service = service
    self.target = target
    self.chain = chain
    self.manifest = manifest
    self.wanted = wanted
  }

  func open() throws(ServiceError) -> any BackupSink {
    let directory = try service.openDirectory(target: target)
    if hasBegun { try requirePoint(in: directory) }
    let writer = try backingUp { () throws(BackupError) in
      try directory.makeChain(chain, of: manifest.device).write(manifest, wanted: wanted)
    }
    hasBegun = true
    return writer
  }

  /// Where something else is mounted now, or nothing is, nothing is begun anew.
  private func requirePoint(in directory: DirectoryTarget) throws(ServiceError) {
    let isThere = try backingUp { () throws(BackupError) in
      guard try directory.chains(of: manifest.device).contains(chain) else { return false }
      return try directory.chain(chain, of: manifest.device).has(manifest.id)
    }
    guard !isThere else { return }
    throw ServiceError(
      .targetUnreachable, "\(directory.folder.path): the backup that was begun is not there")
  }

  func requireRoom(_ bytes: UInt64) throws(ServiceError) {
    try requireRoom(bytes, in: try? service.openDirectory(target: target).folder)
  }
}

/// A file that holds a whole disk. What an earlier attempt has left of it is of no use, since nothing says
/// which disk's it is.
final class FilePlace: BackupPlace {
  let service: Service
  let target: String
  private let geometry: Geometry
  private var begun: FileIdentity?

  init(_ service: Service, _ target: String, of geometry: Geometry) {
    self.service = service
    self.target = target
    self.geometry = geometry
  }

  func open() throws(ServiceError) -> any BackupSink {
    let file = try file()
    if let begun {
      guard file.identity == begun else {
        throw ServiceError(
          .targetUnreachable,
          "\(file.folder.path)/\(file.name): the file that was begun is not there")
      }
    } else {
      try backingUp { () throws(BackupError) in
        try FileTarget.discard(file.name, in: file.folder)
      }
    }
    let sink = try backingUp { () throws(BackupError) in try file.sink(of: geometry) }
    begun = file.identity
    return sink
  }

  func requireRoom(_ bytes: UInt64) throws(ServiceError) {
    try requireRoom(bytes, in: try? file().folder)
  }

  private func file() throws(ServiceError) -> TargetFile {
    guard case .file(let file) = try service.open(target: target) else {
      throw ServiceError(.targetUnsuitable, "the target \(target) is no file")
    }
    return file
  }
}

extension TargetFile {
  fileprivate var identity: FileIdentity? {
    try? folder.open(name, writable: false).identity
  }
}
