internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// A job's copying of any origin, a live device included.

extension Service {
  /// Opens what is copied for as long as `body` runs; a live device as it is at this instant.
  ///
  /// - Parameters:
  ///   - version: of the image that is made; nil for the origin's own.
  ///   - body: is also told why there is nothing to copy any more, whenever it asks.
  func copying<Result>(
    _ origin: CopyOrigin, as version: ImageVersion?, _ control: JobControl,
    _ body: (RestoreSource, _ obstacle: @escaping () -> ServiceError?) throws(JobStop) -> Result
  ) throws(JobStop) -> Result {
    guard case .device(let id, nil) = origin,
      try failing({ () throws(ServiceError) in try !self.controller(id).device().isReadOnly })
    else {
      if case .backup(let backup, let target) = origin {
        return try body(try source(backup, on: target, as: version, awaiting: control)) { nil }
      }
      return try reading(origin, as: version, for: control.id, failing: { .failed($0) }) {
        (source) throws(JobStop) in try body(source) { nil }
      }
    }
    let controller = try failing { () throws(ServiceError) in try self.controller(id) }
    let job = control.id
    let frozen = try control.untilThereIsRoom { () throws(ServiceError) in
      try controller.runAndWait { () throws(ServiceError) in
        try self.freeze(controller, for: job)
      }
    }
    defer { thaw(frozen, controller, isKept: false) }
    let source = try failing { () throws(ServiceError) in
      try RestoreSource(as: version) { (nil, FrozenSource(frozen.backup)) }
    }
    return try body(source) { BackupRun.end(of: frozen.backup) }
  }

  /// What copying takes; a live device as it is now.
  func planCopy(
    of origin: CopyOrigin, as version: ImageVersion? = nil
  ) throws(ServiceError) -> (clusters: UInt64, geometry: Geometry) {
    if case .device(let id, nil) = origin {
      let device = try controller(id).device()
      let own = device.geometry
      let geometry = Geometry(
        version: version ?? own.version, clusterShift: own.clusterShift, sizeBytes: own.sizeBytes)
      try Service.requirePossible(geometry)
      return (device.mappedClusters, geometry)
    }
    return try reading(origin, as: version, for: ULID.make(), failing: { $0 }) {
      (source) throws(ServiceError) in
      try Service.requirePossible(source.geometry)
      return (UInt64(source.stored.setCount), source.geometry)
    }
  }

  /// - Throws: `size-invalid` for a disk that no image of its version can hold.
  static func requirePossible(_ geometry: Geometry) throws(ServiceError) {
    let limit = Geometry.sizeLimit(
      version: geometry.version, clusterShift: geometry.clusterShift)
    guard geometry.sizeBytes > limit else { return }
    throw ServiceError(
      NewDiskFault.tooLarge(limitBytes: limit),
      "an image of version \(geometry.version.rawValue) cannot hold a disk of \(geometry.sizeBytes) bytes",
      pointer: "/params/to/version")
  }
}

extension CopyOrigin {
  /// Where it lies, if that may not be reached for a while.
  var elsewhere: String? {
    switch self {
    case .device, .image: nil
    case .backup(_, let target): target
    case .nbd(let uri, _): uri
    }
  }
}
