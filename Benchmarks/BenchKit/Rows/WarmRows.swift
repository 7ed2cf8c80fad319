/// A row of plain work on the working set in the page cache.
private struct WarmRow: Sendable {
  let id: String
  let title: String
  /// Ratios that ploopd is to reach against qemu-nbd and nbdkit.
  let goals: (qemu: Double, nbdkit: Double)
  let change: @Sendable (inout LoadJob) -> Void

  static let all = [
    WarmRow(id: "read-1", title: "4 KiB random read, depth 1", goals: (1.5, 1)) { _ in },
    WarmRow(id: "read-16", title: "4 KiB random read, depth 16", goals: (6, 2)) { $0.depth = 16 },
    WarmRow(id: "read-4x16", title: "4 KiB random read, 4 connections × 16", goals: (8, 2)) {
      ($0.depth, $0.connections) = (16, 4)
    },
    WarmRow(id: "overwrite", title: "4 KiB overwrite, depth 16", goals: (2, 1)) {
      ($0.kind, $0.depth) = (.write, 16)
    },
    WarmRow(id: "mix", title: "64 KiB mix 70/30, depth 16", goals: (2, 1)) {
      ($0.kind, $0.depth, $0.blockBytes) = (.mix, 16, 64 << 10)
    },
    WarmRow(id: "big-read", title: "1 MiB sequential read, depth 4", goals: (2, 1)) {
      ($0.order, $0.depth, $0.blockBytes) = (.sequential, 4, 1 << 20)
    },
    WarmRow(id: "big-write", title: "1 MiB sequential write, depth 4", goals: (2, 1)) {
      ($0.kind, $0.order, $0.depth, $0.blockBytes) = (.write, .sequential, 4, 1 << 20)
    },
  ]
}

/// Images that are filled once and stay: in the page cache first, and out of it at the end.
extension Suite {
  static let warmRowIDs = WarmRow.all.map(\.id) + ["cpu", "chain", "fio-read", "fio-write"]

  func warmRows() throws {
    let ids = Suite.warmRowIDs + ["neighbours", "fairness", "zeroes", "cold"]
    guard ids.contains(where: wants) else { return }
    let contenders = try taking([.ploopd, .qemu, .qemuRing, .nbdkit, .nbdServer, .null]).map {
      try prepare($0, levels: 1)
    }
    for row in WarmRow.all where wants(row.id) || (row.id == "big-read" && wants("cpu")) {
      try measure(row, contenders)
    }
    let real = contenders.filter { $0.peer != .null }
    if wants("chain"), let short = contenders.first(where: { $0.peer == .ploopd }) {
      let long = try prepare(.ploopd, levels: 16)
      try measureChain(short, long)
      try finish(long)
    }
    try fioRows(real)
    if wants("neighbours") { try neighbourRow(real) }
    if wants("fairness"), settings.base == nil { try fairnessRow(real) }
    if wants("zeroes") { try zeroesRow(real.filter { $0.peer != .qemuRing }) }
    unpin(contenders.flatMap(\.files))
    if wants("cold") { try coldRow(real) }
    for contender in contenders { try finish(contender) }
  }

  /// An image that is filled through its server, closed, forgotten by the page cache, read through its
  /// server, and pinned. Of a chain the oldest image has all the data.
  private func prepare(_ peer: Peer, levels: Int) throws -> Contender {
    let files = try (0..<levels).map { _ in try servers.path(peer, "warm") }
    for file in files { try servers.make(peer, file, sizeBytes: settings.diskBytes) }
    guard peer != .null, let oldest = files.first else { return try servers.serve(peer, files) }
    let writer = try servers.serve(peer, [oldest])
    try fill(writer, bytes: 2 * settings.spanBytes)
    try writer.stop()
    let contender = try servers.serve(
      peer, files, name: levels > 1 ? "\(peer.rawValue), chain of \(levels)" : nil)
    try repopulate(contender)
    return contender
  }

  private func measure(_ row: WarmRow, _ contenders: [Contender]) throws {
    let kind = job(row.change).kind
    let isBulk = job(row.change).blockBytes > 4096
    let before = stamp
    let measured = try measure(
      row.id, row.title, unit: isBulk ? "MiB/s" : "op/s",
      goals([
        Report.Goal(against: Peer.qemu.rawValue, ratio: row.goals.qemu),
        Report.Goal(against: Peer.nbdkit.rawValue, ratio: row.goals.nbdkit),
      ]), of: contenders, name: \.name
    ) { contender, round in
      // What small writes cost depends on the folios that reading happened to make.
      if row.id == "overwrite" { try repopulate(contender) }
      if kind != .read { stamp = before + 1 + UInt8(round) }
      let result = try load(contender) {
        row.change(&$0)
        ($0.seed, $0.stamp) = (UInt64(round + 1), stamp)
      }
      if kind != .read, round == settings.rounds - 1 {
        try verify(contender, stamp: stamp, least: result.writtenUnits)
      }
      return Report.Sample(result, isBulk: isBulk)
    }
    guard row.id == "big-read", wants("cpu"), let measured else { return }
    keepProcessorTime(
      measured, "cpu", "server CPU of 1 MiB reads",
      goals([Report.Goal(against: Peer.qemu.rawValue, ratio: 0.4, atMost: true)], atMost: true))
  }

  /// What the reads that were just measured, of 1 MiB each, cost the server.
  func keepProcessorTime(
    _ reads: Report.Row, _ id: String, _ title: String, _ goals: [Report.Goal]
  ) {
    let contenders = reads.contenders.map { measured in
      Report.Measured(
        name: measured.name,
        samples: measured.samples.compactMap(\.serverMicroseconds).map {
          Report.Sample(value: $0 * 1024 / 1e6)
        })
    }
    keep(
      Report.Row(
        id: id, title: title, unit: "s/GiB", goals: goals,
        contenders: contenders.filter { !$0.samples.isEmpty }))
  }

  private func measureChain(_ short: Contender, _ long: Contender) throws {
    try measure(
      "chain", "4 KiB random read, depth 16, chain of 16", unit: "op/s",
      [Report.Goal(of: long.name, against: short.name, ratio: 0.98)], of: [short, long],
      name: \.name
    ) { contender, round in
      Report.Sample(
        try load(contender) { ($0.depth, $0.seed) = (16, UInt64(round + 1)) })
    }
  }

  /// Reads of what the page cache has just forgotten.
  private func coldRow(_ contenders: [Contender]) throws {
    try measure(
      "cold", "4 KiB random read, depth 16, cold", unit: "op/s",
      goals([
        Report.Goal(against: Peer.qemu.rawValue, ratio: 1.5),
        Report.Goal(against: Peer.nbdkit.rawValue, ratio: 1),
      ]), of: contenders, name: \.name
    ) { contender, round in
      for file in contender.files { try PageCache.drop(file) }
      return Report.Sample(
        try load(contender, isFresh: true) { ($0.depth, $0.seed) = (16, UInt64(round + 1)) })
    }
  }

  /// Zeroes over what was written, behind the working set.
  private func zeroesRow(_ contenders: [Contender]) throws {
    let bytes = settings.spanBytes / 2
    try measure(
      "zeroes", "WRITE_ZEROES of 1 MiB, depth 4", unit: "MiB/s",
      goals([Report.Goal(against: Peer.qemu.rawValue, ratio: 5)]), of: contenders, name: \.name
    ) { contender, round in
      try fill(contender, offset: settings.spanBytes, bytes: bytes)
      let result = try load(contender, isFresh: true) {
        ($0.kind, $0.order, $0.limit) = (.zeroes, .sequential, .pass)
        ($0.depth, $0.blockBytes) = (4, 1 << 20)
        ($0.offset, $0.spanBytes) = (UInt64(settings.spanBytes), UInt64(bytes))
      }
      if round == settings.rounds - 1 {
        try verify(contender, offset: settings.spanBytes, bytes: bytes, accepted: 0...0)
      }
      return Report.Sample(result, isBulk: true)
    }
  }
}
