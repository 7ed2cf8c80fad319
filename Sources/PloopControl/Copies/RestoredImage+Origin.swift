internal import PloopBackup
internal import PloopFormat
internal import PloopIO

// The image that a job makes of whatever is copied, over all attempts.

extension RestoredImage {
  /// Whether it is known for the job's own without its journal, too.
  var isOwn: Bool { (try? service.existing(job))?.ownsWhatItMakes == true }

  /// Makes it whole.
  ///
  /// - Parameters:
  ///   - version: nil for the origin's own.
  ///   - isEmpty: whether nothing is copied into it.
  /// - Returns: clusters that were copied, by all attempts, and what the image is one of.
  func make(
    of origin: CopyOrigin, as version: ImageVersion?, isEmpty: Bool = false, _ control: JobControl
  ) throws(JobStop) -> (clusters: UInt64, geometry: Geometry) {
    guard !isOwn else { return try close(control) }
    // The instant of a live disk is over with the attempt that copied it.
    if origin.isInstant, isBegun {
      control.log(CopyOrigin.newInstant, level: "warning")
      remove()
    }
    return try service.copying(origin, as: version, control) {
      (source, obstacle) throws(JobStop) in
      let geometry = source.geometry
      try failing { () throws(ServiceError) in try Service.requirePossible(geometry) }
      try make(
        of: isEmpty ? NothingSource(geometry: geometry) : source, on: origin.elsewhere,
        isWhole: false, control, obstacle: obstacle
      ) { () throws(JobStop) in try commit(control) }
      return (isEmpty ? 0 : UInt64(source.stored.setCount), geometry)
    }
  }

  /// Everything was copied by an earlier attempt. What it was copied from may be gone by now, and is not
  /// asked for.
  private func close(
    _ control: JobControl
  ) throws(JobStop) -> (clusters: UInt64, geometry: Geometry) {
    let (geometry, clusters) = try failing { () throws(ServiceError) in
      (try self.geometry(), try service.existing(job).progress.totalClusters)
    }
    try make(of: NothingSource(geometry: geometry), on: nil, isWhole: !isBegun, control) {
      () throws(JobStop) in try commit(control)
    }
    return (clusters, geometry)
  }

  /// From here on the image is known for the job's own by this alone.
  private func commit(_ control: JobControl) throws(JobStop) {
    try control.commit()
    control.own(true)
    guard isOwn else {
      throw .failed(ServiceError(.ioError, "the state cannot be written", errno: "EIO"))
    }
  }
}

extension CopyOrigin {
  static let newInstant =
    "the copy is begun anew, at a new instant: what guests have overwritten since is lost"
}
