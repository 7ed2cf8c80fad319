internal import PloopIO
internal import TestSupport

/// Disks with indexes that are larger than the memory for them: how fast they are there, and how fast they are read.
extension Suite {
  static let indexRowIDs = ["attach", "return", "index-cache"]

  func indexRows() throws {
    guard settings.base == nil else { return }
    if wants("attach") { try attachRow() }
    if wants("return") { try returnRow() }
    if wants("index-cache") { try indexCacheRow() }
  }

  /// Fresh disks, and one of 1 TiB with all of it mapped (by default), from the request to the answer.
  private func attachRow() throws {
    enum Disk: String, CaseIterable {
      case wide = "fresh, 100 TiB in clusters of 1 MiB"
      case fine = "fresh, 16 TiB in clusters of 64 KiB"
      case mapped = "all mapped, clusters of 64 KiB"
      case qemu = "qemu-nbd, the same image"

      var isFresh: Bool { self == .wide || self == .fine }
    }
    let service = try servers.service(.ploopd)
    let mapped = try servers.path(.ploopd, "index")
    try makeMapped(mapped, sizeBytes: settings.spanBytes * 1024)
    var files = [Disk.mapped: mapped, .qemu: mapped]
    for (disk, size, cluster) in [(Disk.wide, "100T", "1M"), (.fine, "16T", "64K")] {
      let file = try servers.path(.ploopd, "index")
      try Tool.shell(
        "'\(settings.program)' image create '\(file)' --size \(size) --cluster-size \(cluster)")
      files[disk] = file
    }
    try measure(
      "attach", "attach of large disks", unit: "ms",
      [Report.Goal(of: Disk.mapped.rawValue, against: Disk.qemu.rawValue, ratio: 1, atMost: true)],
      of: Disk.allCases, name: \.rawValue
    ) { disk, _ in
      guard let file = files[disk] else { throw BenchFailure("no file") }
      let start = monotonicNanoseconds()
      if disk == .qemu {
        let contender = try servers.serve(.qemu, [file])
        let milliseconds = Double(monotonicNanoseconds() - start) / 1e6
        try contender.stop()
        return Report.Sample(value: milliseconds)
      }
      let reply = try service.attach("large", [String(file.dropFirst(service.images.count + 1))])
      let milliseconds = Double(monotonicNanoseconds() - start) / 1e6
      guard reply.status == 201 else { throw BenchFailure("attach: \(reply.text)") }
      let gone = try service.delete("/v1/devices/large?mode=safe")
      guard gone.status == 204 else { throw BenchFailure("detach: \(gone.text)") }
      return Report.Sample(value: milliseconds)
    }
    for file in Set(files.values) { try servers.remove(file) }
  }

  /// How soon the service is there again with all of its disks, however it has ended.
  private func returnRow() throws {
    enum End: String, CaseIterable { case stopped, killed }
    let service = try RunningService(
      in: "\(servers.folder)/\(servers.newName("return"))", program: settings.program,
      logLevel: "notice")
    try makeDisks(service)
    try measure(
      "return", "start of the service with \(settings.devices) idle disks", unit: "ms", [],
      of: End.allCases, name: \.rawValue
    ) { end, _ in
      if end == .killed {
        service.kill()
      } else {
        guard try service.end() == 0 else { throw BenchFailure("no clean end") }
      }
      let start = monotonicNanoseconds()
      try service.start()
      return Report.Sample(value: Double(monotonicNanoseconds() - start) / 1e6)
    }
    _ = try service.end()
  }

  /// 4 KiB at random all over a disk whose index is ten times the budget, against a budget that has room for all of
  /// it. What is read is in the page cache in both.
  private func indexCacheRow() throws {
    let disk = settings.spanBytes * 160
    let budget = settings.spanBytes / 1024
    let all = "all of the index in memory"
    let tenth = "a tenth of it"
    let contenders = try [(all, 16 * budget * 2), (tenth, budget)].map { name, bytes in
      let folder = "\(servers.folder)/\(servers.newName("budget"))"
      let service = try RunningService(
        in: folder, ["--index-cache-size", "\(bytes)"], program: settings.program,
        logLevel: "info")
      try makeMapped("\(service.images)/a.hds", sizeBytes: disk)
      let reply = try service.attach("large", ["a.hds"])
      guard reply.status == 201 else { throw BenchFailure("attach: \(reply.text)") }
      return Contender(
        .ploopd, name: name, NBDAddress(door: .unix(service.nbdSocket), export: "large"),
        process: service.process, files: ["\(service.images)/a.hds"]
      ) { _ = try service.end() }
    }
    func reads(_ job: inout LoadJob) {
      (job.strideBytes, job.spanBytes) = (4 << 20, UInt64(disk))
      (job.depth, job.accepted) = (16, 0...0)
    }
    for contender in contenders {
      try load(contender) {
        reads(&$0)
        ($0.order, $0.limit) = (.scatter, .pass)
      }
    }
    try measure(
      "index-cache", "4 KiB random read, depth 16, over a large index", unit: "op/s",
      [Report.Goal(of: tenth, against: all, ratio: 0.6)], of: contenders, name: \.name
    ) { contender, round in
      Report.Sample(
        try load(contender) {
          reads(&$0)
          $0.seed = UInt64(round + 1)
        })
    }
    for contender in contenders { try finish(contender) }
  }

  /// An image in clusters of 64 KiB of which every one is mapped.
  private func makeMapped(_ path: String, sizeBytes: Int) throws {
    try Tool.shell(
      "'\(settings.program)' image create '\(path)' --size \(sizeBytes) --cluster-size 64K")
    guard let slash = path.lastIndex(of: "/") else { throw BenchFailure("no folder") }
    let file = try ImageFolder(path: String(path[..<slash])).open(
      String(path[path.index(after: slash)...]), writable: true)
    try map(sizeBytes / Suite.clusterBytes, in: file)
    try file.sync()
  }
}
