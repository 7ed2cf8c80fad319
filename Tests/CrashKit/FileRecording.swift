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
  private let watch = Watch()
  private let folder: ImageFolder
  private let plain: ImageFolder
  private let engine = IOEngine(threadLimit: 1, rings: false)
  private var disk = ModelDisk(sizeBytes: 12 * 4096 - 1024)

  /// - Parameter path: an empty folder.
  package init(path: String, _ version: ImageVersion) throws {
    self.version = version
    plain = try ImageFolder(path: path)
    folder = try ImageFolder(path: path, probe: watch)
    for (cluster, value) in [(0, 1), (1, 2), (5, 0), (6, 4), (11, 5)] {
      disk.clusters[cluster] = UInt64(value)
    }
  }

  deinit { engine.stop(until: .after(seconds: 10)) }

  private func copy(into folder: ImageFolder, steps: Int) throws -> Bool {
    let sink = try FileTarget.image(Self.name, in: folder, of: disk.geometry, version: version)
    return try BackupRecording.copy(ModelSource(disk), to: sink, on: engine, steps: steps)
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
    var options = AttachOptions.ofTests
    options.readonly = true
    let device = try Device.attach(
      [DeltaSource(file: file, folder: scratch, name: Self.name)], options)
    defer { try? device.detach(until: .after(seconds: 10)) }
    return try ModelDisk.values(of: DeviceSource(device))
  }
}
