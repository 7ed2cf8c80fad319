internal import Glibc
internal import PloopBackup
internal import PloopDevice
package import PloopFormat
internal import PloopIO
internal import TestSupport

/// Copies a disk into the image of a restore, with every call recorded.
package final class FileRecording {
  private static let name = "out"

  private let version: ImageVersion
  private let watch: Watch
  private let folder: ImageFolder
  private let plain: ImageFolder
  private let engine = IOEngine(threadLimit: 1, rings: false)
  private var disk = ModelDisk(sizeBytes: 12 * 4096 - 1024)
  private let source: any BackupSource

  /// - Parameters:
  ///   - path: an empty folder.
  ///   - lender: another one, for an image of the disk whose blocks are shared where they can be.
  package init(path: String, _ version: ImageVersion, lender: String? = nil) throws {
    self.version = version
    watch = Watch(sharesBlocks: lender != nil)
    plain = try ImageFolder(path: path)
    folder = try ImageFolder(path: path, probe: watch)
    for (cluster, value) in [(0, 1), (1, 2), (5, 0), (6, 4), (11, 5)] {
      disk.clusters[cluster] = UInt64(value)
    }
    source = try lender.map { [disk] in try Self.image(of: disk, in: $0) } ?? ModelSource(disk)
  }

  private static func image(of disk: ModelDisk, in path: String) throws -> DeviceSource {
    let folder = try ImageFolder(path: path)
    try ImageCreator.create(in: folder, name: name, geometry: disk.geometry)
    let device = try attach(folder.open(name, writable: true), in: folder, readonly: false)
    let cluster = AlignedBuffer(count: Int(disk.geometry.clusterBytes)).region
    for (number, value) in disk.clusters.enumerated() {
      guard let value else { continue }
      let start = UInt64(number) * disk.geometry.clusterBytes
      let part = cluster.slice(
        0, Int(min(disk.geometry.clusterBytes, disk.geometry.sizeBytes - start)))
      ModelDisk.fill(part, with: value)
      try device.write(part, at: start, durable: false)
    }
    try device.detach(until: .after(seconds: 10))
    return DeviceSource(
      try attach(folder.open(name, writable: false), in: folder, readonly: true))
  }

  deinit { engine.stop(until: .after(seconds: 10)) }

  private func copy(into folder: ImageFolder, steps: Int) throws -> Bool {
    let sink = try FileTarget.image(Self.name, in: folder, of: disk.geometry, version: version)
    return try BackupRecording.copy(source, to: sink, on: engine, steps: steps)
  }

  /// Whoever copies goes away after each step, and another one goes on.
  package func run() throws { while try !copy(into: folder, steps: 1) {} }

  /// Looks at states behind each event (``ChainRecording/enumerate(path:_:_:)``).
  package func enumerate(
    path: String, _ bounds: Bounds, _ looks: Looks = Looks()
  ) throws -> Enumeration.Result {
    try FolderStates.enumerate(
      watch, in: folder, scratch: ImageFolder(path: path), bounds, looks
    ) { state, _, scratch in
      check(state, in: scratch, looks)
    }
  }

  /// A file without a journal is whole; what has one, or is not there yet, can be gone on with.
  private func check(
    _ state: [String: [UInt8]], in scratch: ImageFolder, _ looks: Looks
  ) -> String? {
    do {
      try FolderStates.lay(state, in: scratch)
      let isWhole =
        scratch.contains(Self.name) && !scratch.contains(FileTarget.journal(of: Self.name))
      if !isWhole, try !copy(into: scratch, steps: .max) { return "it does not end" }
      guard Set(try scratch.names()) == [Self.name] else {
        return "there is \(try scratch.names())"
      }
      guard let values = try values(of: scratch.open(Self.name, writable: false), in: scratch),
        disk.reads(like: values)
      else { return "it holds another disk" }
      let check = try ImageCheck(scratch.open(Self.name, writable: false))
      guard check.verdict == .clean else { return "it is \(check.verdict)" }
      return try looks.judge(Self.name, in: scratch)
    } catch {
      return "\(error)"
    }
  }

  private func values(of file: ImageFile, in scratch: ImageFolder) throws -> [UInt64]? {
    let device = try Self.attach(file, in: scratch, readonly: true)
    defer { try? device.detach(until: .after(seconds: 10)) }
    return try ModelDisk.values(of: DeviceSource(device))
  }

  private static func attach(
    _ file: ImageFile, in folder: ImageFolder, readonly: Bool
  ) throws -> Device {
    var options = AttachOptions.ofTests
    options.readonly = readonly
    return try Device.attach([DeltaSource(file: file, folder: folder, name: name)], options)
  }
}
