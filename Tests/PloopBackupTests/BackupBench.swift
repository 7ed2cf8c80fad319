import CrashKit
import Glibc
import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// A chain of backups in a folder of its own, and the disk that is copied into it.
final class BackupBench {
  private let temporary: TemporaryFolder
  let folder: ImageFolder
  let engine = IOEngine(threadLimit: 4, rings: false)
  var disk: ModelDisk
  private var lastValue: UInt64 = 0
  /// The disk at the instant of each point.
  private(set) var saved: [(manifest: PointManifest, disk: ModelDisk)] = []

  init(clusterShift: Int = 12, sizeBytes: UInt64 = 64 << 12) throws {
    temporary = try TemporaryFolder()
    folder = try ImageFolder(path: temporary.path)
    disk = ModelDisk(clusterShift: clusterShift, sizeBytes: sizeBytes)
  }

  deinit { engine.stop(until: .after(seconds: 20)) }

  var chain: BackupChain { BackupChain(in: folder) }

  func path(_ name: String) -> String { "\(folder.path)/\(name)" }

  func write(_ clusters: some Sequence<Int>) {
    for cluster in clusters {
      lastValue += 1
      disk.clusters[cluster] = lastValue
    }
  }

  /// What the next point is to be.
  func manifest(_ source: ModelSource, _ id: String? = nil) -> PointManifest {
    let parent = saved.last?.manifest.id
    return PointManifest(
      id ?? "b\(saved.count)", device: "disk", mode: parent == nil ? .full : .incremental,
      parent: parent, geometry: disk.geometry, wanted: source.wanted,
      pointInTime: Double(saved.count) + 0.1)
  }

  @discardableResult
  func point(changed: [Int]? = nil) throws -> (source: ModelSource, result: PointManifest.Result) {
    let source = ModelSource(disk, wanted: changed)
    let manifest = manifest(source)
    let writer = try chain.write(manifest, wanted: source.wanted)
    let copy = BackupCopy(from: source, to: writer, on: engine)
    while try copy.step(limitBytes: 10 << disk.geometry.clusterShift) { try copy.commit() }
    try copy.finish()
    saved.append((manifest, disk))
    return (source, try #require(try chain.manifest(manifest.id).result))
  }

  func copy(_ source: any BackupSource, to sink: any BackupSink) throws {
    let copy = BackupCopy(from: source, to: sink, on: engine)
    while try copy.step(limitBytes: 1 << 20) { try copy.commit() }
    try copy.finish()
  }

  /// Every point reads as the disk was, and nothing in it is wrong.
  func expectAllSound() throws {
    for (manifest, disk) in saved {
      let reader = try PointReader(manifest.id, of: chain)
      let values = try #require(try ModelDisk.values(of: reader), "\(manifest.id)")
      #expect(disk.reads(like: values), "\(manifest.id)")
      #expect(try wrong(manifest.id).isEmpty)
    }
  }

  func wrong(_ id: String) throws -> [UInt64] {
    let check = try PointCheck(id, of: chain)
    while try check.step(limitBytes: 64 << 10, on: engine) {}
    #expect(check.checkedBytes == check.totalBytes)
    return check.wrongClusters
  }

  /// The disk's bytes, in a raw file.
  func saveRaw(_ disk: ModelDisk, _ name: String) throws {
    let file = try folder.create(name)
    let geometry = disk.geometry
    let buffer = AlignedBuffer(count: Int(geometry.clusterBytes))
    for (cluster, value) in disk.clusters.enumerated() {
      let start = UInt64(cluster) * geometry.clusterBytes
      let part = buffer.region.slice(0, Int(min(geometry.clusterBytes, geometry.sizeBytes - start)))
      ModelDisk.fill(part, with: value ?? 0)
      try file.write(part, at: start)
    }
  }

  func flip(_ name: String, at offset: UInt64) throws {
    let file = try folder.open(name, writable: true)
    let byte = AlignedBuffer(count: 1)
    try file.readOrZero(into: byte.region, at: offset)
    byte.region[0] ^= 0x10
    try file.write(byte.region, at: offset)
  }
}

/// The kind of the error that a body throws.
func kind(_ body: () throws -> Void) -> BackupError.Kind? {
  do { try body() } catch { return (error as? BackupError)?.kind }
  return nil
}
