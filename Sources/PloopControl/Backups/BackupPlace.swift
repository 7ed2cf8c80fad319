internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// Where one backup is copied to: a point of a chain, or a place that holds one. It can be opened again and again,
/// each time where it was committed last.
protocol BackupPlace {
  var service: Service { get }
  /// The target, by name.
  var target: String { get }

  /// - Throws: `image-exists` when it is whole.
  func open() throws(ServiceError) -> any BackupSink

  /// Whether what there is under its name is the copy that was begun, made whole: else it is somebody else's.
  func isWhole() throws(ServiceError) -> Bool

  /// - Throws: `insufficient-space` where less is free.
  func requireRoom(_ bytes: UInt64) throws(ServiceError)

  /// Why a step failed.
  func failure(_ error: BackupError) -> ServiceError
}

/// One that keeps a manifest.
protocol PointKeeper: BackupPlace {
  func manifest() throws(ServiceError) -> PointManifest
}

extension PointKeeper {
  func isWhole() throws(ServiceError) -> Bool { try manifest().result != nil }
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
final class PointPlace: PointKeeper {
  let service: Service
  var target: String { destination.name }
  let chain: String
  private let destination: BackupDestination
  private let made: PointManifest
  private let wanted: Bitmap?
  private var hasBegun = false

  init(
    _ service: Service, _ destination: BackupDestination, _ chain: String,
    _ manifest: PointManifest,
    wanted: Bitmap? = nil
  ) {
    self.service = service
    self.destination = destination
    self.chain = chain
    made = manifest
    self.wanted = wanted
  }

  func open() throws(ServiceError) -> any BackupSink {
    let directory = try service.openDirectory(destination)
    if hasBegun { try requirePoint(in: directory) }
    let writer = try backingUp { () throws(BackupError) in
      try directory.makeChain(chain, of: made.device).write(made, wanted: wanted)
    }
    hasBegun = true
    return writer
  }

  func manifest() throws(ServiceError) -> PointManifest {
    let directory = try service.openDirectory(destination)
    return try backingUp { () throws(BackupError) in
      try directory.chain(chain, of: made.device).manifest(made.id)
    }
  }

  /// Where something else is mounted now, or nothing is, nothing is begun anew.
  private func requirePoint(in directory: DirectoryTarget) throws(ServiceError) {
    let isThere = try backingUp { () throws(BackupError) in
      guard try directory.chains(of: made.device).contains(chain) else { return false }
      return try directory.chain(chain, of: made.device).has(made.id)
    }
    guard !isThere else { return }
    throw ServiceError(
      .targetUnreachable, "\(directory.folder.path): the backup that was begun is not there")
  }

  func requireRoom(_ bytes: UInt64) throws(ServiceError) {
    try requireRoom(bytes, in: try? service.openDirectory(destination).folder)
  }
}
