internal import PloopDevice
internal import PloopFormat
internal import TestSupport

extension ChainScenario {
  /// Any change of a chain behind any other, with guests writing. Each seed has another one.
  package static func random(seed: UInt64) -> ChainScenario {
    ChainScenario(name: "changes at random", clusters: 12...16) { disk in
      var random = SeededGenerator(seed: seed)
      try disk.attach()
      try disk.write(0..<40)
      for number in 0..<28 {
        try disk.writeAnything(&random)
        try disk.changeAnything(&random, number)
      }
      try disk.detach()
    }.inOrder(.mixed(seed: seed))
  }
}

extension ChainRecording {
  private func sectors(_ random: inout SeededGenerator, atMost length: Int = 14) -> Range<Int> {
    let count = Int(geometry.clusterCount) * Self.perCluster
    let first = Int.random(in: 0..<count, using: &random)
    return first..<min(count, first + Int.random(in: 1...length, using: &random))
  }

  private func cluster(_ random: inout SeededGenerator) -> Range<Int> {
    let cluster = Int.random(in: 0..<Int(geometry.clusterCount), using: &random)
    return cluster..<cluster + 1
  }

  fileprivate func writeAnything(_ random: inout SeededGenerator) throws {
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      switch Int.random(in: 0..<12, using: &random) {
      case 0: try zero(clusters: cluster(&random))
      case 1: try writeZeroBytes(clusters: cluster(&random))
      case 2: try flush()
      case 3: try write(sectors(&random), durable: true)
      default: try write(sectors(&random))
      }
    }
  }

  /// Snapshots below the top, oldest first, of which nothing else is made.
  private func snapshotsBelow() throws -> [Int] {
    let descriptor = try file.read()
    return try descriptor.chain(to: descriptor.topGUID).dropLast().compactMap { shot in
      frozen.lastIndex { $0.guid == shot.guid && $0.goneFrom == .max }
    }
  }

  private func hasOneChild(_ number: Int) throws -> Bool {
    try file.read().children(of: frozen[number].guid).count == 1
  }

  /// A snapshot that the disk does not lie over, and nothing else either.
  private func leaf() throws -> Int? {
    let descriptor = try file.read()
    return frozen.indices.last { number in
      let guid = frozen[number].guid
      return descriptor.shot(guid) != nil && frozen[number].goneFrom == .max
        && descriptor.children(of: guid).isEmpty
    }
  }

  fileprivate func changeAnything(_ random: inout SeededGenerator, _ number: Int) throws {
    let below = try snapshotsBelow()
    let chosen = below.randomElement(using: &random)
    switch Int.random(in: 0..<16, using: &random) {
    case 0..<4 where below.count < 5:
      // With something that the flush ahead has to do.
      try write(sectors(&random))
      try snapshot(
        Guests(
          ahead: [sectors(&random, atMost: 4)], opening: [sectors(&random, atMost: 4)],
          trimmed: Bool.random(using: &random) ? cluster(&random) : 0..<0,
          flushes: Bool.random(using: &random), later: sectors(&random, atMost: 3)),
        beginning: Int.random(in: 0..<4, using: &random) == 0 ? "with \(number)" : nil)
    case 4, 5:
      guard let chosen, try hasOneChild(chosen) else { return }
      let isLast = chosen == below.last
      let between = sectors(&random, atMost: 3)
      try merge(
        chosen, !isLast && Bool.random(using: &random) ? .backward : .forward
      ) { try write(between) }
    case 6:
      guard let last = below.last, try hasOneChild(last) else { return }
      try flip(last)
    case 7:
      guard let chosen else { return }
      // A third of the time the state before is kept.
      try switchTop(to: chosen, keep: Int.random(in: 0..<3, using: &random) == 0)
    case 8: if let leaf = try leaf() { try removeLeaf(leaf) }
    case 9:
      let clusters = geometry.clusterCount + 1
      guard clusters <= 16 else { return }
      let between = sectors(&random, atMost: 3)
      try grow(toClusters: clusters) { try write(between) }
    case 10, 11:
      let parts = Compaction.Part.allCases.filter { _ in Bool.random(using: &random) }
      let between = sectors(&random, atMost: 3)
      try compact(Set(parts), steps: Bool.random(using: &random) ? .max : 2) { try write(between) }
    case 12: try checkpoint("alone \(number)")
    case 13:
      if let name = kept.last(where: { $0.goneFrom == .max })?.name { try removeCheckpoint(name) }
    case 14:
      try restore(
        (0..<Int(geometry.clusterCount)).filter { _ in Bool.random(using: &random) },
        stops: Bool.random(using: &random) ? .max : 1)
    default:
      try detach()
      try attach()
    }
  }
}
