internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

/// Hashes the lower delta of a disk, with every call recorded.
package final class HashRecording {
  private static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 2000 << 12)

  private let watch = Watch()
  private let folder: ImageFolder
  private let initial: [String: [UInt8]]

  /// - Parameter path: an empty folder.
  package init(path: String) throws {
    let plain = try ImageFolder(path: path)
    folder = try ImageFolder(path: path, probe: watch)
    var files: [String: [UInt8]] = [:]
    for name in ["base", "top"] {
      try ImageCreator.create(in: plain, name: name, geometry: Self.geometry)
    }
    let base = try Device.attach(
      [
        DeltaSource(file: try plain.open("base", writable: true), folder: plain, name: "base")
      ], .ofTests)
    for cluster: UInt64 in [0, 5, 1022, 1023, 1999] {
      try base.put([UInt8(truncatingIfNeeded: cluster | 1)], at: cluster << 12)
    }
    try base.close()
    for name in ["base", "top"] { files[name] = try plain.bytes(of: name, limit: 1 << 20) }
    initial = files
  }

  private static func hash(_ folder: ImageFolder) throws -> [HashRun.Level] {
    var options = AttachOptions.ofTests
    options.readonly = true
    let device = try Device.attach(
      ["base", "top"].map {
        DeltaSource(file: try folder.open($0, writable: false), folder: folder, name: $0)
      }, options)
    defer { try? device.detach(until: .after(seconds: 10)) }
    let run = try HashRun(of: device)
    while try run.step(limitBytes: 2 << 12) != nil {}
    return run.levels
  }

  package func run() throws { _ = try Self.hash(folder) }

  /// Looks at states behind each event (``ChainRecording/enumerate(path:_:_:)``): whatever there is of
  /// hashes says nothing wrong, and the next run makes or verifies them.
  package func enumerate(
    path: String, _ bounds: Bounds, _ looks: Looks = Looks()
  ) throws -> Enumeration.Result {
    try FolderStates.enumerate(
      watch, in: folder, initial: initial, scratch: ImageFolder(path: path), bounds, looks
    ) { state, _, scratch in
      do {
        try FolderStates.lay(state, in: scratch)
        // The same files, of the same time, as far as the hashes can tell.
        let steady = try ImageFolder(path: scratch.path, probe: SteadyFiles())
        for round in 0..<2 {
          let levels = try Self.hash(steady)
          guard levels.allSatisfy({ $0.damagedCount == 0 }) else {
            return "sound clusters are damaged"
          }
          guard round == 0 || levels.allSatisfy({ $0.outcome == .verified }) else {
            return "the second run says \(levels.map(\.outcome))"
          }
        }
        guard
          Set(try scratch.names()).isSuperset(of: ["base", "top", "base.hashes", "top.hashes"]),
          try !scratch.names().contains(where: { $0.hasSuffix(".tmp") })
        else { return "there is \(try scratch.names())" }
        return nil
      } catch {
        return "\(error)"
      }
    }
  }
}
