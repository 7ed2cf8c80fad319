internal import PloopFormat
internal import PloopIO

/// The check of indexes beside the first requests of their disk, where reading them would take a while.
///
/// The order (docs/crash-safety.md, "Attach"): the chain is attached by its headers, marked, and read; each entry is
/// checked before it is followed, as always. What wants to change the disk waits (``Condition``). Then every index is
/// checked as a whole, the file is cut to what is referenced, the allocator gets its free map, the pages of the map are
/// counted; and changes go on. What is found to be wrong degrades the disk.
struct IndexCheck: Sendable {
  private let opener: ChainOpener
  private let levels: [ChainOpener.Level]
  /// On which the files lie.
  private let filesystems: Set<UInt64>

  /// - Returns: nil where the attach is to do it itself: where little is to be read, or something to be repaired, or
  ///   nothing may happen behind it.
  init?(
    of levels: [ChainOpener.Level], _ opener: ChainOpener, counting map: PagedMap
  ) throws(DeviceError) {
    let options = opener.options
    guard let promptBytes = options.promptIndexBytes, !options.suspended,
      !levels.contains(where: \.isUnclean),
      try IndexCheck.writtenBytes(of: levels) > promptBytes,
      try !IndexCheck.hasTail(levels)
    else { return nil }
    self.opener = opener
    self.levels = levels
    filesystems = Set(levels.map(\.source.file.identity.device))
    // Until they are counted all of them are looked for in the files.
    for level in levels {
      switch level.layout {
      case .raw(let clusters) where clusters > 0:
        for page in 0...Geometry.position(of: clusters - 1).page {
          map.table.forgetMapped(page: page)
        }
      case .raw: break
      case .ploop(let geometry):
        try IndexCheck.forEachWritten(of: level, geometry) { range in
          let pages =
            range.lowerBound / UInt64(Geometry.pageBytes)..<(range.upperBound - 1)
            / UInt64(Geometry.pageBytes) + 1
          for page in pages.clamped(to: 0..<UInt64(geometry.pageCount)) {
            map.table.forgetMapped(page: Int(page))
          }
        }
      }
    }
  }

  private static func forEachWritten(
    of level: ChainOpener.Level, _ geometry: Geometry, _ body: (Range<UInt64>) -> Void
  ) throws(DeviceError) {
    var written = WrittenRanges(level.source.file, endingAt: geometry.headerBytes)
    var start: UInt64 = 0
    while let range = try converting({ () throws(IOError) in try written.next(from: start) }) {
      body(range)
      start = range.upperBound
    }
  }

  private static func writtenBytes(of levels: [ChainOpener.Level]) throws(DeviceError) -> UInt64 {
    var bytes: UInt64 = 0
    for level in levels {
      guard case .ploop(let geometry) = level.layout else { continue }
      try forEachWritten(of: level, geometry) { bytes += UInt64($0.count) }
    }
    return bytes
  }

  /// Whether slots behind a disk's last cluster are set: these an attach refuses, or repairs.
  private static func hasTail(_ levels: [ChainOpener.Level]) throws(DeviceError) -> Bool {
    for level in levels {
      guard case .ploop(let geometry) = level.layout else { continue }
      let start = (Geometry.headerSlots + geometry.clusterCount) * 4
      guard start < geometry.headerBytes else { continue }
      // More than a cluster is not what anybody has made.
      guard geometry.headerBytes - start <= geometry.clusterBytes else { return true }
      let rest = AlignedBuffer(count: Int(geometry.headerBytes - start))
      try converting { () throws(IOError) in
        try level.source.file.readOrZero(into: rest.region, at: start)
      }
      if !rest.region.isZero { return true }
    }
    return false
  }

  /// Begins; the device's condition tells when it is over.
  func begin(on device: Device) {
    device.checks.check(device, on: filesystems) { run(on: device) }
  }

  private func run(on device: Device) {
    do throws(DeviceError) {
      var levels = self.levels
      guard !device.condition.isGivenUp else { return }
      try opener.checkIndexes(&levels, counting: nil) { device.condition.isGivenUp }
      guard device.condition.endsReading() else { return }
      for (level, delta) in zip(levels, device.chain.deltas) {
        delta.had.note(level.had, count: level.mapped)
      }
      if let writing = device.chain.writing {
        try Device.cutTail(&levels[levels.count - 1], device.geometry)
        writing.allocator.adopt(used: levels[levels.count - 1].used)
      }
      device.condition.endCheck(nil)
      IndexCheck.beginCount(on: device, filesystems)
    } catch {
      device.condition.endCheck("the check of the index behind the attach has found: \(error)")
    }
  }

  /// The files that were checked are not held meanwhile: a change of the chain may have let go of them.
  private static func beginCount(on device: Device, _ filesystems: Set<UInt64>) {
    device.checks.count(device, on: filesystems) { count(on: device, filesystems) }
    // It may have been closed a moment ago.
    if device.condition.isCounted { device.checks.remove(device) }
  }

  private static func count(on device: Device, _ filesystems: Set<UInt64>) {
    // A disk that is being closed is not read any more: nobody else could take its file away.
    let isWhole = device.map.count {
      !device.condition.isCounted && !device.checks.isAwaited(on: filesystems)
    }
    // What has been counted by now is not counted again.
    guard isWhole || device.condition.isCounted else { return beginCount(on: device, filesystems) }
    device.condition.endCount()
  }
}
