internal import Glibc
internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

/// Writes backups into an export or one file, one after the other, with every call recorded, and knows what
/// each has to hold and how long.
package final class SinglePointRecording {
  package enum Kind: String, CaseIterable, Sendable {
    case export, raw, image
  }

  private struct Known {
    let manifest: PointManifest
    let disk: ModelDisk
    /// From which position of the trace on it has to be there, and until when.
    var wholeFrom = Int.max
    var goneFrom = Int.max
  }

  private static let place = "place"
  private static let sizeBytes = 12 * 4096 - 1024

  private let kind: Kind
  private let watch = Watch()
  private let folder: ImageFolder
  private let plain: ImageFolder
  private let engine = IOEngine(threadLimit: 1, rings: false)
  private var points: [Known] = []
  private var disk = ModelDisk(sizeBytes: UInt64(sizeBytes))
  /// What somebody has left in the export, with some room behind the disk's end.
  private let garbage = (0..<sizeBytes + 2048).map { UInt8(truncatingIfNeeded: $0 &* 7 | 1) }

  /// - Parameter path: an empty folder.
  package init(path: String, _ kind: Kind) throws {
    self.kind = kind
    plain = try ImageFolder(path: path)
    folder = try ImageFolder(path: path, probe: watch)
    guard kind == .export else { return }
    let file = try plain.create(Self.place)
    try file.write(AlignedBuffer(garbage).region, at: 0)
  }

  deinit { engine.stop(until: .after(seconds: 10)) }

  private var position: Int { watch.trace.events.count }

  private func target(_ folder: ImageFolder) -> any SinglePointTarget {
    switch kind {
    case .raw: FilePointTarget(Self.place, in: folder, as: .raw, records: folder)
    case .image: FilePointTarget(Self.place, in: folder, as: .image, records: folder)
    case .export:
      NBDTarget(Self.place, records: folder) { () throws(BackupError) in
        do {
          return try FileExport(folder.open(Self.place, writable: true))
        } catch let error as IOError { throw BackupError(error) } catch {
          throw BackupError(.failed, "\(error)")
        }
      }
    }
  }

  // MARK: The scenario

  /// A backup that is interrupted, one that takes its place, one that is removed, and one that takes the
  /// place of half a one. A whole file is in nobody's way: it goes first.
  package func run() throws {
    let target = target(folder)
    for (cluster, value) in [(0, 1), (1, 2), (5, 3), (6, 4), (11, 5)] {
      disk.clusters[cluster] = UInt64(value)
    }
    try point(target, stops: 1)
    disk.clusters[1] = nil
    disk.clusters[5] = 0
    for (cluster, value) in [(6, 6), (7, 7), (11, 8)] { disk.clusters[cluster] = UInt64(value) }
    if kind != .export { try remove(target) }
    try point(target, stops: 2)
    try remove(target)
    begin()
    _ = try copy(points[points.count - 1], to: target, steps: 1)
    try point(target, stops: .max)
  }

  private func remove(_ target: any SinglePointTarget) throws {
    points[points.count - 1].goneFrom = position
    try target.remove(points[points.count - 1].manifest.id)
  }

  private func begin() {
    let manifest = PointManifest(
      "b\(points.count)", device: "disk", mode: .full, geometry: disk.geometry,
      pointInTime: Double(points.count))
    if let last = points.indices.last {
      points[last].goneFrom = min(points[last].goneFrom, position)
    }
    points.append(Known(manifest: manifest, disk: disk))
  }

  private func point(_ target: any SinglePointTarget, stops: Int) throws {
    begin()
    while try !copy(points[points.count - 1], to: target, steps: stops) {}
    points[points.count - 1].wholeFrom = position
  }

  private func copy(_ known: Known, to target: any SinglePointTarget, steps: Int) throws -> Bool {
    try BackupRecording.copy(
      ModelSource(known.disk), to: target.write(known.manifest), on: engine, steps: steps)
  }

  // MARK: After a crash

  /// Looks at states behind each event (``ChainRecording/enumerate(path:_:_:)``).
  package func enumerate(
    path: String, _ bounds: Bounds, _ looks: Looks = Looks()
  ) throws -> Enumeration.Result {
    try FolderStates.enumerate(
      watch, in: folder, initial: kind == .export ? [Self.place: garbage] : [:],
      scratch: ImageFolder(path: path), bounds, looks
    ) { state, moment, scratch in
      check(state, at: moment.position, in: scratch, looks)
    }
  }

  private func check(
    _ state: [String: [UInt8]], at position: Int, in scratch: ImageFolder, _ looks: Looks = Looks()
  ) -> String? {
    do {
      try FolderStates.lay(state, in: scratch)
      let target = target(scratch)
      if let fault = try checkWhole(target, at: position) { return fault }
      for point in try target.points() where point.state != .whole {
        guard point.state == .partial,
          let known = points.first(where: { $0.manifest.id == point.id })
        else {
          try target.remove(point.id)
          continue
        }
        guard try copy(known, to: target, steps: .max) else { return "\(point.id) does not end" }
        guard try target.points().map(\.state) == [.whole] else {
          return "\(point.id) was gone on with, and there is \(try target.points().map(\.state))"
        }
      }
      return try checkWhole(target, at: nil) ?? checkNames(scratch, target)
        ?? checkImage(target, in: scratch, looks)
    } catch {
      return "\(error)"
    }
  }

  /// - Parameter position: nil when anything may have been replaced meanwhile.
  private func checkWhole(_ target: any SinglePointTarget, at position: Int?) throws -> String? {
    let whole = try target.points().filter { $0.state == .whole }
    if let position {
      for known in points where known.wholeFrom <= position && position < known.goneFrom {
        guard whole.contains(where: { $0.id == known.manifest.id }) else {
          return "\(known.manifest.id) is gone"
        }
      }
    }
    for point in whole {
      guard let known = points.first(where: { $0.manifest.id == point.id }) else {
        return "nobody knows \(point.id)"
      }
      guard let values = try ModelDisk.values(of: target.reader(point.id)),
        known.disk.reads(like: values)
      else { return "\(point.id) holds another disk" }
      let check = try target.check(point.id)
      while try check.step(limitBytes: 1 << 20, on: engine) {}
      guard check.wrongClusters.isEmpty else {
        return "\(point.id): clusters \(check.wrongClusters) are wrong"
      }
    }
    return nil
  }

  private func checkImage(
    _ target: any SinglePointTarget, in scratch: ImageFolder, _ looks: Looks
  ) throws -> String? {
    guard kind == .image, try !target.points().isEmpty else { return nil }
    let check = try ImageCheck(scratch.open(Self.place, writable: false))
    guard check.verdict == .clean else { return "it is \(check.verdict)" }
    return try looks.judge(Self.place, in: scratch)
  }

  private func checkNames(
    _ scratch: ImageFolder, _ target: any SinglePointTarget
  ) throws -> String? {
    let points = try target.points()
    var known = Set(points.flatMap { ["\($0.id).sums", "\($0.id).json"] })
    if kind == .export { known.formUnion([Self.place, "lock"]) }
    if !points.isEmpty { known.insert(Self.place) }
    let left = try scratch.names().filter { !known.contains($0) }
    return left.isEmpty ? nil : "left behind: \(left.sorted())"
  }

  // MARK: Faults

  /// How many calls the scenario makes.
  package static func calls(path: String, _ kind: Kind) throws -> Int {
    let recording = try SinglePointRecording(path: path, kind)
    return try recording.watch.countCalls { try recording.run() }
  }

  /// Runs the scenario until a call fails, and looks at what is there then; see
  /// ``BackupRecording/run(failing:with:isKill:path:)``.
  package static func run(
    failing number: Int, isKill: Bool, path: String, _ kind: Kind
  ) throws -> String? {
    let recording = try SinglePointRecording(path: path, kind)
    return try recording.watch.run(
      failing: number, with: EIO, isKill: isKill, in: recording.plain, recording.run
    ) { state, position in
      let scratch = try ImageFolder(path: path).makeFolder(beneath: "after")
      return recording.check(state, at: position, in: scratch)
    }
  }
}
