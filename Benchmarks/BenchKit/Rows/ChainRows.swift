internal import PloopIO
internal import TestSupport

/// Changes of a chain: how long they take, and what a guest notices.
///
/// They are left out of comparisons with another commit, which may not know them.
extension Suite {
  static let chainRowIDs = [
    "merge", "merge-guest", "snapshot", "recording", "check", "clone", "compact",
  ]

  func chainRows() throws {
    guard settings.base == nil else { return }
    if wants("merge") { try mergeRow() }
    if wants("merge-guest") { try mergeGuestRow() }
    if wants("snapshot") { try snapshotRow() }
    if wants("recording") { try recordingRow() }
    if wants("check") { try checkRow() }
    if wants("clone") { try cloneRow() }
    if wants("compact") { try compactRow() }
  }

  /// Who merges, or copies, the same bytes.
  private enum Merger: String, CaseIterable {
    case ploopd
    case qemuImage = "qemu-img commit"
    case openVZ = "ploop merge"
    case copy = "cp"
  }

  /// A delta with the working set, merged into an empty one, durably; `cp` copies the file.
  private func mergeRow() throws {
    try measure(
      "merge", "merge of a delta, durably", unit: "MiB/s",
      [
        Report.Goal(against: Merger.qemuImage.rawValue, ratio: 2),
        Report.Goal(against: Merger.openVZ.rawValue, ratio: 2),
        Report.Goal(against: Merger.copy.rawValue, ratio: 1 / 1.3),
      ], of: Merger.allCases, name: \.rawValue
    ) { merger, _ in
      let seconds = try seconds(of: merger)
      return Report.Sample(value: Double(settings.spanBytes >> 20) / seconds)
    }
  }

  private func seconds(of merger: Merger) throws -> Double {
    func timed(_ body: () throws -> Void) rethrows -> Double {
      FreeMemory.warm(bytes: settings.spanBytes + settings.spanBytes / 4)
      let start = monotonicNanoseconds()
      try body()
      return Double(monotonicNanoseconds() - start) / 1e9
    }
    switch merger {
    case .ploopd:
      let contender = try filled(.ploopd)
      _ = try servers.snapshot(contender)
      try servers.settle()
      let seconds = try timed { try servers.merge(contender) }
      try verify(contender)
      try finishChain(contender)
      return seconds
    case .qemuImage:
      let base = try servers.path(.qcow2, "base")
      let top = try servers.path(.qcow2, "top")
      try servers.make(.qcow2, base, sizeBytes: settings.diskBytes)
      try servers.make(.qcow2, top, sizeBytes: settings.diskBytes, backing: base)
      let writer = try servers.serve(.qcow2, [top])
      try fill(writer, bytes: settings.spanBytes)
      try writer.stop()
      try servers.settle()
      let seconds = try timed {
        try Tool.shell("qemu-img commit -q '\(top)' && sync '\(base)'", seconds: 300)
      }
      for file in [top, base] { try servers.remove(file) }
      return seconds
    case .openVZ, .copy:
      let contender = try filled(.ploopd)
      try contender.stop()
      guard let delta = contender.files.last else { throw BenchFailure("no file") }
      let base = try servers.path(.ploopd, "base")
      try servers.make(.ploopd, base, sizeBytes: settings.diskBytes)
      try servers.settle()
      let seconds = try timed {
        if merger == .openVZ {
          try Tool.shell(
            "\(OpenVZ.padding) ploop merge '\(delta)' '\(base)' && sync '\(base)'", seconds: 300)
        } else {
          try Tool.shell(
            "cp --reflink=never '\(delta)' '\(base)' && sync '\(base)'", seconds: 300)
        }
      }
      for file in [delta, base] { try servers.remove(file) }
      return seconds
    }
  }

  /// A disk with the working set in it, served.
  func filled(_ peer: Peer, sizeBytes: Int? = nil) throws -> Contender {
    let file = try servers.path(peer, "chain")
    try servers.make(peer, file, sizeBytes: sizeBytes ?? settings.diskBytes)
    let contender = try servers.serve(peer, [file])
    try fill(contender, bytes: settings.spanBytes)
    return contender
  }

  private func mergeGuestRow() throws {
    enum Variant: String, CaseIterable { case alone, merging = "during a merge" }
    try measure(
      "merge-guest", "p99 of a 4 KiB reader, depth 1", unit: "µs",
      [
        Report.Goal(
          of: Variant.merging.rawValue, against: Variant.alone.rawValue, ratio: 2, atMost: true)
      ],
      of: Variant.allCases, name: \.rawValue
    ) { variant, round in
      let contender = try filled(.ploopd)
      _ = try servers.snapshot(contender)
      try verify(contender)
      let job = variant == .merging ? try servers.beginMerge(contender) : nil
      let result = try load(contender) {
        ($0.seed, $0.limit) = (UInt64(round + 1), .seconds(min(settings.seconds, 0.3)))
      }
      if let job { try servers.awaitJob(job) }
      try finishChain(contender)
      return Report.Sample(value: result.p99, p50: result.p50, p99: result.p99)
    }
  }

  /// A snapshot of a disk of 100 GiB while 4 KiB writes go on: in place, or with copies of whole clusters,
  /// which have to end before the gate is closed.
  private func snapshotRow() throws {
    enum Part: String, CaseIterable {
      case pause = "requests wait"
      case pauseOfCopies = "requests wait, with copies of clusters in flight"
      case whole = "request to answer"
    }
    try measure(
      "snapshot", "snapshot of a disk of 100 GiB under writes", unit: "ms", [], of: Part.allCases,
      name: \.rawValue
    ) { part, round in
      let contender = try filled(.ploopd, sizeBytes: max(settings.diskBytes, 100 << 30))
      if part == .pauseOfCopies { _ = try servers.snapshot(contender) }
      try servers.settle()
      let times = try servers.beside(contender, load: { try write(contender, round) }) {
        try Servers.snapshot($0, $1)
      }
      try finishChain(contender)
      return Report.Sample(value: part == .whole ? times.whole : times.pause)
    }
  }

  /// Half a second of 4 KiB writes.
  func write(_ contender: Contender, _ round: Int) throws {
    var job = job {
      ($0.kind, $0.depth, $0.stamp) = (.write, 4, 1)
      ($0.seed, $0.limit) = (UInt64(round + 1), .seconds(max(0.2, min(settings.seconds, 0.5))))
    }
    job.accepted = 0...255
    _ = try Load.run([(contender.address, job)], server: contender.process)
  }

  /// Ends a disk and removes everything beside its first image.
  func finishChain(_ contender: Contender) throws {
    try contender.stop()
    guard let file = contender.files.first, let slash = file.lastIndex(of: "/") else { return }
    let (folder, name) = (file[..<slash], file[file.index(after: slash)...])
    try Tool.shell("rm -f '\(folder)/\(name)'* '\(folder)/DiskDescriptor.xml'*")
  }
}
