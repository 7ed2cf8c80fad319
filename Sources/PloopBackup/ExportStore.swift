internal import PloopFormat
internal import PloopIO

/// An export that is being written. Nobody knows what it held before, so zeroes are stored like everything.
struct ExportStore: FlatStore {
  private let export: any BlockExport
  private let lock: ImageFile?
  /// A part of a block cannot be written; the last one is filled with zeroes.
  private let end: UInt64

  /// - Parameter lock: whose holder alone writes the export; nil where something else keeps others from it.
  /// - Throws: `.mismatch` when the disk cannot be written there.
  init(
    _ export: any BlockExport, for geometry: Geometry, _ lock: ImageFile?
  ) throws(BackupError) {
    let (facts, name) = (export.facts, export.name)
    guard !facts.isReadOnly else { throw BackupError(.mismatch, "\(name) is read-only") }
    guard facts.canFlush else {
      throw BackupError(.mismatch, "\(name): the server cannot make anything durable")
    }
    guard facts.blockBytes <= geometry.clusterBytes else {
      throw BackupError(
        .mismatch,
        "\(name) takes no request under \(facts.blockBytes) bytes, and a cluster has \(geometry.clusterBytes)"
      )
    }
    end = ((geometry.sizeBytes - 1) / facts.blockBytes + 1) * facts.blockBytes
    guard facts.sizeBytes >= end else {
      throw BackupError(
        .mismatch, "\(name) has \(facts.sizeBytes) bytes, and \(end) are to be stored")
    }
    self.export = export
    self.lock = lock
  }

  var path: String { export.name }
  var needsZeroes: Bool { true }
  var zeroesAtOnceBytes: UInt64 {
    export.facts.canZero ? NBDConnection.zeroesAtOnceBytes : export.facts.limitBytes
  }

  func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {
    let count = min(UInt64(region.count), end - offset)
    try export.write(region.slice(0, Int(count)), at: offset)
  }

  func zero(_ range: Range<UInt64>) throws(BackupError) {
    try export.zero(range.lowerBound..<min(range.upperBound, end))
  }

  func flush() throws(BackupError) { try export.flush() }

  func letGo() {
    export.hangUp()
    if let lock { ImageLock.release(lock) }
  }
}
