internal import Glibc
internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

extension BackupRecording {
  /// Looks at states behind each event (``ChainRecording/enumerate(path:_:_:)``).
  package func enumerate(
    path: String, _ bounds: Bounds, _ looks: Looks = Looks()
  ) throws -> Enumeration.Result {
    try FolderStates.enumerate(
      watch, in: folder, scratch: ImageFolder(path: path), bounds, looks
    ) { state, moment, scratch in
      check(state, at: moment.position, in: scratch, looks)
    }
  }

  func check(
    _ state: [String: [UInt8]], at position: Int, in scratch: ImageFolder, _ looks: Looks = Looks()
  ) -> String? {
    do {
      try FolderStates.lay(state, in: scratch)
      let chain = BackupChain(in: scratch)
      if let fault = try checkWhole(chain, at: position) { return fault }
      if let fault = try settleOthers(chain) { return fault }
      return try checkWhole(chain, at: position) ?? checkNames(chain) ?? checkImages(chain, looks)
    } catch {
      return "\(error)"
    }
  }

  /// Every point that has to be there is, and each that is there holds what it has to.
  private func checkWhole(_ chain: BackupChain, at position: Int) throws -> String? {
    let listed = try chain.points()
    let whole = listed.filter { $0.state == .whole }
    for point in listed where point.chainLength > 0 && point.state != .whole {
      return "\(point.id) is \(point.state)"
    }
    for known in points where known.wholeFrom <= position && position < known.goneFrom {
      guard whole.contains(where: { $0.id == known.manifest.id }) else {
        return "\(known.manifest.id) is gone"
      }
    }
    for point in whole {
      guard let known = points.first(where: { $0.manifest.id == point.id }) else {
        return "nobody knows \(point.id)"
      }
      guard let values = try ModelDisk.values(of: PointReader(point.id, of: chain)),
        known.disk.reads(like: values)
      else { return "\(point.id) holds another disk" }
      let check = try PointCheck(point.id, of: chain)
      while try check.step(limitBytes: 1 << 20, on: engine) {}
      guard check.wrongClusters.isEmpty else {
        return "\(point.id): clusters \(check.wrongClusters) are wrong"
      }
    }
    return try checkAsDisk(chain)
  }

  /// The image of every point that is whole is clean.
  private func checkImages(_ chain: BackupChain, _ looks: Looks) throws -> String? {
    for point in try chain.points() where point.state == .whole {
      let name = "\(point.id).hds"
      let check = try ImageCheck(try chain.folder.open(name, writable: false))
      guard check.verdict == .clean else { return "\(name) is \(check.verdict)" }
      if let fault = try looks.judge(name, in: chain.folder) { return fault }
    }
    return nil
  }

  /// What the newest point is for whoever attaches it as the disk it is.
  private func checkAsDisk(_ chain: BackupChain) throws -> String? {
    guard let descriptor = try chain.descriptor(),
      let newest = try chain.points().last(where: {
        $0.state == .whole
      })
    else { return nil }
    var options = AttachOptions.ofTests
    options.readonly = true
    let sources = try descriptor.chain(to: descriptor.topGUID).map { shot in
      DeltaSource(
        file: try chain.folder.open(shot.file, writable: false), folder: chain.folder,
        name: shot.file)
    }
    let device = try Device.attach(sources, options)
    defer { try? device.detach(until: .after(seconds: 10)) }
    guard let known = points.first(where: { $0.manifest.id == newest.id }),
      descriptor.sizeSectors * Geometry.sectorBytes == known.disk.geometry.sizeBytes,
      let values = try ModelDisk.values(of: DeviceSource(device)), known.disk.reads(like: values)
    else { return "\(newest.id), attached, is another disk" }
    return nil
  }

  /// What was begun is gone on with if it fits, and then whole; everything else can be removed.
  private func settleOthers(_ chain: BackupChain) throws -> String? {
    for point in try chain.points() where point.chainLength == 0 {
      guard point.state == .partial, let known = points.first(where: { $0.manifest.id == point.id })
      else {
        try chain.remove(point.id)
        continue
      }
      let source = ModelSource(known.disk, wanted: known.wanted)
      guard try copy(source, known.manifest, chain) else { return "\(point.id) does not end" }
      guard try chain.points().contains(where: { $0.id == point.id && $0.state == .whole }) else {
        return "\(point.id) was gone on with, and is not whole"
      }
    }
    return nil
  }

  private func checkNames(_ chain: BackupChain) throws -> String? {
    let ids = try chain.points().map(\.id)
    let known = Set(
      ids.flatMap { ["\($0).hds", "\($0).sums", "\($0).json"] } + [
        "DiskDescriptor.xml", "DiskDescriptor.xml.lck", "DiskDescriptor.xml.tmp",
      ])
    let left = try chain.folder.names().filter { !known.contains($0) }
    return left.isEmpty ? nil : "left behind: \(left.sorted())"
  }

  // MARK: Faults

  /// How many calls the scenario makes.
  package static func calls(path: String) throws -> Int {
    let recording = try BackupRecording(path: path)
    return try recording.watch.countCalls { try recording.run() }
  }

  /// Runs the scenario until a call fails, and looks at what is there then.
  ///
  /// - Parameters:
  ///   - isKill: all calls behind it fail as well: the process is gone.
  ///   - path: an empty folder.
  package static func run(
    failing number: Int, with code: Int32 = EIO, isKill: Bool, path: String
  ) throws -> String? {
    let recording = try BackupRecording(path: path)
    return try recording.watch.run(
      failing: number, with: code, isKill: isKill, in: recording.plain, recording.run
    ) { state, position in
      let scratch = try ImageFolder(path: path).makeFolder(beneath: "after")
      return recording.check(state, at: position, in: scratch)
    }
  }
}
