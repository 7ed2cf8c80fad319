/// What a reader of cached data notices of one connection with slow work beside it.
extension Suite {
  private struct Variant {
    let name: String
    let neighbour: LoadJob?
    let usesChain: Bool
  }

  func neighbourRow(_ contenders: [Contender]) throws {
    guard let contender = contenders.first(where: { $0.peer == .ploopd }) else { return }
    let base = try servers.path(.ploopd, "base")
    try servers.make(.ploopd, base, sizeBytes: settings.diskBytes)
    let writer = try servers.serve(.ploopd, [base])
    try fill(writer, bytes: 2 * settings.spanBytes)
    try writer.stop()
    let warmer = try servers.serve(.ploopd, [base])
    try verify(warmer)
    try warmer.stop()
    try pin(base)
    // Copying a cluster is quick: longer, and there would be none left to copy.
    let seconds = min(settings.seconds, 0.4)
    try measure(
      "neighbours", "p99 of a 4 KiB reader, depth 1", unit: "µs",
      variants().filter { $0.neighbour != nil }.map {
        Report.Goal(of: $0.name, against: "alone", ratio: 2, atMost: true)
      }, of: variants(), name: \.name
    ) { variant, round in
      let chain = variant.usesChain ? try chain(on: base) : nil
      let subject = chain ?? contender
      if !variant.usesChain {
        for file in subject.files {
          try PageCache.drop(file, from: settings.spanBytes + 16 << 20)
        }
      }
      // Opened a moment ago, its first requests would be slower than they are later.
      if chain != nil { try verify(subject) }
      var loads = [(subject.address, job { $0.seed = UInt64(round + 1) })]
      loads[0].1.limit = .seconds(seconds)
      if var neighbour = variant.neighbour {
        neighbour.limit = .seconds(seconds)
        loads.append((subject.address, neighbour))
      }
      FreeMemory.warm(bytes: settings.spanBytes + settings.spanBytes / 4)
      let results = try Load.run(loads, server: subject.process)
      let result = results[0]
      for other in results.dropFirst() where other.kind != .stall && other.operations == 0 {
        throw BenchFailure("the neighbour did nothing")
      }
      try chain?.stop()
      if let top = chain?.files.last { try servers.remove(top) }
      return Report.Sample(value: result.p99, p50: result.p50, p99: result.p99)
    }
    unpin([base])
    try servers.remove(base)
  }

  /// A fresh image on a base that is never written.
  private func chain(on base: String) throws -> Contender {
    let top = try servers.path(.ploopd, "top")
    try servers.make(.ploopd, top, sizeBytes: settings.diskBytes)
    return try servers.serve(.ploopd, [base, top])
  }

  private func variants() -> [Variant] {
    func neighbour(_ change: (inout LoadJob) -> Void) -> LoadJob {
      job {
        $0.offset = UInt64(settings.spanBytes)
        $0.accepted = 0...255
        ($0.stamp, $0.givesWay) = (stamp, true)
        change(&$0)
      }
    }
    return [
      Variant(name: "alone", neighbour: nil, usesChain: false),
      Variant(
        name: "beside cold reads", neighbour: neighbour { $0.depth = 4 }, usesChain: false),
      Variant(
        name: "beside copy-on-write",
        neighbour: neighbour { ($0.kind, $0.order, $0.strideBytes) = (.write, .scatter, 1 << 20) },
        usesChain: true),
      Variant(
        name: "beside 64 MiB writes",
        neighbour: neighbour {
          ($0.kind, $0.order, $0.blockBytes) = (.write, .sequential, 64 << 20)
        },
        usesChain: false),
      Variant(
        name: "beside a client that does not read",
        neighbour: neighbour { ($0.kind, $0.blockBytes, $0.depth) = (.stall, 1 << 20, 64) },
        usesChain: false),
    ]
  }
}
