internal import PloopFormat
package import PloopIO

/// Looks at a chain step by step, without changing a byte: at images that nobody writes, or at the chain
/// of an attached disk while guests use it.
///
/// One thread at a time calls the methods. Nobody else changes the disk's chain meanwhile.
package final class CheckRun {
  private let sources: [DeltaSource]
  private var levels: [ChainCheck.Level] = []
  /// Of a disk that is attached for writing.
  private let live: LiveIndex?
  /// Whether the locks of the files are its own, and not an attached disk's.
  private let isLocking: Bool

  /// - Parameter sources: oldest first, opened for reading. QEMU's locks are held as long as this object is
  ///   there, so that what was seen stays true.
  /// - Throws: `.locked` when somebody has one of them open for writing, and what makes the list itself no
  ///   chain: `.rawNotBase`, `.sameFileTwice`, `.tooManyDeltas`.
  package init(of sources: [DeltaSource]) throws(DeviceError) {
    try ChainOpener.forLooking(at: sources).checkSources()
    self.sources = sources
    live = nil
    isLocking = true
    try ChainOpener.lockForReading(sources)
  }

  deinit {
    // By call: a program that is being started may still share the files when they are closed.
    if isLocking { sources.forEach { ImageLock.release($0.file) } }
  }

  /// - Parameter deadline: how long the check of the index that comes with an attach is waited for.
  /// - Throws: `.timeout`; what has kept the delta below the top from being made durable.
  package init(of device: Device, until deadline: Deadline = .never) throws(DeviceError) {
    try device.requireChecked(until: deadline)
    // What has been the top a moment ago may not have its index in its file yet.
    try device.chain.writing?.index.awaitBelow()
    sources = device.chain.deltas.map(\.source)
    live = LiveIndex(of: device)
    isLocking = false
  }

  /// Bytes of indexes that are read, as far as that can be told before.
  package var totalBytes: UInt64 {
    sources.reduce(0) { sum, source in sum &+ CheckRun.indexBytes(of: source) }
  }

  private static func indexBytes(of source: DeltaSource) -> UInt64 {
    guard !source.isRaw, let header = try? Device.header(of: source.file),
      let bytes = try? source.file.size(), let geometry = try? header.geometry(fileBytes: bytes)
    else { return 0 }
    return geometry.headerBytes
  }

  /// - Returns: bytes of indexes that were looked at; nil when there is nothing left.
  /// - Throws: `.io` when a file cannot be read; of an attached disk also `.timeout`, `.detached` and what
  ///   its flush fails with.
  package func step(until deadline: Deadline = .never) throws(DeviceError) -> UInt64? {
    guard levels.count < sources.count else { return nil }
    let source = sources[levels.count]
    guard let live, levels.count == sources.count - 1 else {
      levels.append(try CheckRun.look(at: source))
      return CheckRun.indexBytes(of: source)
    }
    if let bytes = try live.step(until: deadline) { return bytes }
    levels.append(try live.result())
    return 0
  }

  /// What was found, when no step finds anything more.
  package func result() throws(DeviceError) -> ChainCheck {
    ChainCheck(levels: levels, mismatch: try mismatch(), repairPlan: repairPlan)
  }

  private var repairPlan: RepairPlan? {
    guard live == nil, levels.contains(where: { $0.verdict == .corrupt }),
      let plan = try? RepairPlan(of: sources), plan.isNeeded
    else { return nil }
    return plan
  }

  private static func look(at source: DeltaSource) throws(DeviceError) -> ChainCheck.Level {
    guard !source.isRaw else {
      return try converting { () throws(IOError) in
        .raw(fileBytes: try source.file.size(), diskBytes: try source.file.allocatedBytes())
      }
    }
    do {
      return .image(try ImageCheck(source.file))
    } catch {
      guard case .format(let format, _) = error.kind else { throw error }
      return .unusable(format)
    }
  }

  private func mismatch() throws(DeviceError) -> (level: Int, error: FormatError)? {
    // A header that is wrong by itself was found already, and there is nothing to compare it with.
    for case .unusable in levels { return nil }
    do {
      _ = try ChainOpener.forLooking(at: sources).readHeaders()
      return nil
    } catch {
      guard case .format(let format, let level) = error.kind else { throw error }
      return (level, format)
    }
  }
}
