internal import PloopDevice
internal import PloopFormat
package import PloopIO
package import PloopNBD

/// A disk as NBD clients see it: the one place where PloopDevice and PloopNBD meet.
package final class DeviceExport: Export {
  package let size: UInt64
  package let isReadOnly: Bool
  package let preferredBlockSize: UInt32 = 4096
  package let summary: String
  let device: Device
  package let throttle: RequestThrottle?
  /// Shows the disk as it was when this began; every read has to ask it.
  let frozen: PushBackup?
  /// Behind its end the disk may be another node's; nil where there is no other.
  private let lease: Lease?

  init(_ backup: PushBackup, of device: Device, summary: String, lease: Lease?) {
    self.device = device
    self.summary = summary
    throttle = nil
    self.lease = lease
    frozen = backup
    size = device.geometry.sizeBytes
    isReadOnly = true
  }

  init(
    _ device: Device, readonly: Bool, summary: String, throttle: RequestThrottle?, lease: Lease?
  ) {
    self.device = device
    self.summary = summary
    self.throttle = throttle
    self.lease = lease
    frozen = nil
    size = device.geometry.sizeBytes
    isReadOnly = readonly || device.isReadOnly
  }

  package var mayAnswer: Bool { lease?.isHeld ?? true }

  package func keep(_ work: @escaping @Sendable () -> Void) -> Bool { device.keep(work) }

  package func keepChange(_ work: @escaping @Sendable () -> Void) -> Bool {
    device.keepChange(work)
  }

  package func readNow(
    into region: ByteRegion, at offset: UInt64, holes: inout HoleList
  ) -> Bool {
    guard frozen == nil else { return false }
    return device.readNow(into: region, at: offset, holes: &holes)
  }

  package func writeNow(_ region: ByteRegion, at offset: UInt64) -> Bool {
    device.writeNow(region, at: offset)
  }

  package func lendNow(
    _ count: Int, least: Int, at offset: UInt64, holding files: Borrowed<FileTable>?
  ) -> PageLending {
    // What is frozen may be overwritten once its copy is sent.
    guard frozen == nil else { return .nothing }
    return device.lendNow(count, least: least, at: offset, holding: files)
  }

  package func takeBack(_ ticket: UInt64, count: UInt64) { device.takeBack(ticket, count: count) }

  package func stopLending() { device.stopLending() }

  package func beginRead(
    into region: ByteRegion, at offset: UInt64, on lane: ReadLane,
    completion: @escaping @Sendable (Result<HoleList, NBDError>) -> Void
  ) -> Bool {
    guard frozen == nil else { return false }
    return device.beginRead(into: region, at: offset, on: lane) { result in
      completion(result.mapError(NBDError.init))
    }
  }

  package func read(
    into region: ByteRegion, at offset: UInt64, holes: inout HoleList
  ) throws(NBDError) {
    if let frozen {
      return try thawing { () throws(PushBackup.Refusal) in
        try frozen.read(into: region, at: offset)
      }
    }
    try serving { () throws(DeviceError) in
      try device.read(into: region, at: offset, holes: &holes)
    }
  }

  package func write(_ region: ByteRegion, at offset: UInt64, durable: Bool) throws(NBDError) {
    try serving { () throws(DeviceError) in
      try device.write(region, at: offset, durable: durable)
    }
  }

  package func commit() throws(NBDError) {
    try serving { () throws(DeviceError) in try device.commit() }
  }

  package func flush() throws(NBDError) {
    try serving { () throws(DeviceError) in try device.flush() }
  }

  package func trim(offset: UInt64, length: UInt64, durable: Bool) throws(NBDError) {
    try serving { () throws(DeviceError) in
      try device.discard(offset: offset, length: length, durable: durable)
    }
  }

  package func writeZeroes(
    offset: UInt64, length: UInt64, mode: ZeroMode, durable: Bool
  ) throws(NBDError) {
    try serving { () throws(DeviceError) in
      try device.writeZeroes(
        offset: offset, length: length, keepAllocated: mode.contains(.keepAllocated),
        onlyIfFast: mode.contains(.onlyIfFast), durable: durable)
    }
  }

  package func requireFastZero(offset: UInt64, length: UInt64) throws(NBDError) {
    try serving { () throws(DeviceError) in
      try device.requireFastZero(offset: offset, length: length)
    }
  }

  package func cache(offset: UInt64, length: UInt64) throws(NBDError) {
    try serving { () throws(DeviceError) in try device.cache(offset: offset, length: length) }
  }

  package func extentsNow(offset: UInt64, length: UInt64, limit: Int) -> [Extent]? {
    guard frozen == nil else { return nil }
    return device.runsNow(offset: offset, length: length, limit: limit).map(merged)
  }

  package func extents(
    offset: UInt64, length: UInt64, limit: Int
  ) throws(NBDError) -> [Extent] {
    if let frozen {
      return try thawing { () throws(PushBackup.Refusal) in
        try frozen.runs(offset: offset, length: length, limit: limit).map {
          Extent(length: $0.length, isHole: $0.isHole, readsZero: $0.isHole)
        }
      }
    }
    return merged(
      try serving { () throws(DeviceError) in
        try device.runs(offset: offset, length: length, limit: limit)
      })
  }

  /// Clients see only what is allocated, not where.
  private func merged(_ runs: [Device.Run]) -> [Extent] {
    var extents: [Extent] = []
    for run in runs {
      let isHole = run.level == nil
      if let last = extents.last, last.isHole == isHole {
        extents[extents.count - 1].length += run.length
      } else {
        extents.append(Extent(length: run.length, isHole: isHole, readsZero: isHole))
      }
    }
    return extents
  }
}

/// Calls a disk and converts its errors into what a client is told.
func serving<Result>(
  _ body: () throws(DeviceError) -> Result
) throws(NBDError) -> Result {
  do throws(DeviceError) { return try body() } catch { throw NBDError(error) }
}

func thawing<Result>(
  _ body: () throws(PushBackup.Refusal) -> Result
) throws(NBDError) -> Result {
  do throws(PushBackup.Refusal) { return try body() } catch {
    throw NBDError(.io, error.words)
  }
}

extension NBDError {
  fileprivate init(_ error: DeviceError) {
    let kind: NBDError.Kind =
      switch error.kind {
      case .outOfSpace, .imageFull: .noSpace
      case .readOnly: .notPermitted
      case .slow: .notSupported
      case .detached: .shuttingDown
      case .format, .descriptor, .locked, .sameFileTwice, .tooManyDeltas, .rawNotBase, .io,
        .nothingToMerge, .checkpoint, .refused, .shrinks, .size, .degraded, .timeout, .otherPlan,
        .rotten:
        .io
      }
    self.init(kind, error.detail)
  }
}
