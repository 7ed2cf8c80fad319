internal import PloopFormat
internal import TestSupport

/// What is done to a disk while every system call is recorded, or fails. A later operation of the
/// product joins this list in the commit that adds it.
package enum Scenario: String, CaseIterable, Sendable {
  case writes = "writes over several clusters"
  case firstTouch = "first touch"
  case copyOnWrite = "copy-on-write from a delta"
  case copyOnWriteFromRaw = "copy-on-write from a raw base"
  case sharedBlocks = "copy-on-write that shares blocks"
  case trimAndReuse = "trim and reuse of freed clusters"
  case reuseWithoutHoles = "reuse on a host that cannot punch holes"
  case zeroes = "write zeroes"
  case durableWrites = "FUA"
  case flushStorm = "flush storm of several threads"
  case roundsInside = "flush rounds inside of requests"
  case killAndAttach = "attach after a kill"
  case spareTail = "attach of an image with a spare tail"
  case suspend = "suspend and resume"
  case detach = "detach and attach again"
  case checkedBehind = "an index that is checked behind the attach"
  case mixed = "everything, at random"
  case mixedSharing = "everything, at random, where blocks are shared"

  package var setup: Setup {
    var setup = Setup()
    switch self {
    case .copyOnWrite, .roundsInside, .sharedBlocks: setup.base = .delta
    case .copyOnWriteFromRaw: setup.base = .raw
    case .zeroes:
      setup.base = .delta
      setup.geometry = Geometry(version: .v1, clusterShift: 12, sizeBytes: 12 * 4096)
    case .spareTail: setup.spareTailBytes = 2 * 4096 + 700
    case .mixed, .mixedSharing:
      // The last cluster is partial.
      setup.base = .delta
      setup.geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 12 * 4096 - 1024)
    default: break
    }
    // A conversion between the versions that has ended long ago.
    setup.hasConversionFlag = self == .spareTail
    setup.hasHoles = self != .reuseWithoutHoles
    setup.hasRoundsInside = self == .roundsInside || self == .sharedBlocks
    setup.sharesBlocks = self == .sharedBlocks || self == .mixedSharing
    return setup
  }

  /// All but the one in which a thread of its own reads, at whose calls nobody is who could be told.
  package static let failing = allCases.filter { $0 != .checkedBehind }

  /// Whether one fault may reach several callers, since they share a flush round.
  var sharesFaults: Bool { self == .flushStorm || setup.hasRoundsInside }

  package func run(_ disk: Recording, seed: UInt64) throws {
    try disk.attach()
    switch self {
    case .writes:
      try disk.write(4..<30)
      try disk.flush()
      try disk.write(0..<50)
      try disk.write(60..<61)
    case .firstTouch:
      for cluster in 0..<6 {
        try disk.write(cluster * 8 + 1..<cluster * 8 + 3)
        if cluster % 3 == 2 { try disk.flush() }
      }
      try disk.write(90..<92)
    case .copyOnWrite, .copyOnWriteFromRaw, .sharedBlocks:
      try disk.write(1..<2)
      try disk.write(14..<18, durable: true)
      try disk.write(32..<40)
      try disk.flush()
      try disk.write(33..<34)
      try disk.discard(clusters: 2..<3)
      try disk.discard(clusters: 4..<5)
      try disk.write(60..<70)
    case .trimAndReuse, .reuseWithoutHoles: try Scenario.trimAndReuse(disk)
    case .zeroes:
      try disk.write(0..<24)
      try disk.flush()
      try disk.writeZeroes(0..<8, keepAllocated: false)
      try disk.writeZeroes(9..<11, keepAllocated: false)
      try disk.writeZeroes(16..<24, keepAllocated: true)
      try disk.flush()
      try disk.writeZeroes(24..<44, keepAllocated: false)
      try disk.writeZeroes(64..<70, keepAllocated: true, durable: true)
      try disk.discard(clusters: 6..<8)
      try disk.flush()
    case .durableWrites:
      try disk.write(0..<16, durable: true)
      try disk.write(2..<3)
      try disk.write(4..<5, durable: true)
      try disk.discard(clusters: 1..<2, durable: true)
      try disk.write(24..<25, durable: true)
      try disk.writeZeroes(0..<4, keepAllocated: false, durable: true)
    case .flushStorm: try Scenario.flushStorm(disk)
    case .roundsInside:
      try disk.write(1..<2)
      try disk.write(14..<18)
      try disk.discard(clusters: 1..<2)
      try disk.write(40..<41)
      try disk.write(26..<28)
      try disk.write(56..<60)
    case .killAndAttach: try Scenario.killAndAttach(disk)
    case .spareTail:
      for cluster in [0, 3, 5] { try disk.write(cluster * 8 + 2..<cluster * 8 + 4) }
      try disk.flush()
      try disk.write(64..<65)
    case .suspend:
      for round in 0..<3 {
        try disk.write(round * 24 + 3..<round * 24 + 14)
        try disk.discard(clusters: round..<round + 1)
        try disk.suspend()
      }
      try disk.write(80..<81)
    case .detach:
      for round in 0..<4 {
        try disk.write(round * 20..<round * 20 + 10)
        try disk.discard(clusters: round..<round + 1)
        try disk.detach()
        try disk.attach()
      }
    case .checkedBehind: try Scenario.checkedBehind(disk)
    case .mixed, .mixedSharing:
      var random = SeededGenerator(seed: seed)
      for _ in 0..<40 { try Scenario.step(disk, &random) }
    }
    try disk.detach()
  }

  private static func trimAndReuse(_ disk: Recording) throws {
    try disk.write(0..<32)
    try disk.flush()
    try disk.discard(clusters: 0..<2)
    try disk.write(40..<42)
    try disk.flush()
    try disk.write(48..<49)
    try disk.write(56..<64)
    try disk.discard(clusters: 2..<3)
    try disk.flush()
    try disk.write(0..<1)
    try disk.flush()
    try disk.write(64..<66)
  }

  /// Threads with clusters of their own, in one index page; each flushes, trims and writes again.
  private static func flushStorm(_ disk: Recording) throws {
    try disk.concurrently(4) { thread in
      let own = thread * 24
      for round in 0..<3 {
        try disk.write(own + round * 8..<own + round * 8 + 9 - round, durable: round == 1)
        try disk.flush()
        try disk.discard(clusters: thread * 3..<thread * 3 + 1)
        try disk.write(own + 2..<own + 4)
        try disk.flush()
      }
    }
  }

  /// Closed disks that are attached and checked behind that, closed again before, or never closed.
  private static func checkedBehind(_ disk: Recording) throws {
    try disk.write(0..<20)
    try disk.discard(clusters: 1..<2)
    try disk.detach()
    try disk.attach(.never)
    try disk.detach()
    try disk.attach(.behind)
    try disk.write(18..<34)
    try disk.discard(clusters: 0..<1)
    try disk.flush()
    try disk.write(60..<64)
    try disk.detach()
    try disk.attach(.never)
    disk.kill()
    try disk.attach(.behind)
    try disk.write(40..<44, durable: true)
    try disk.detach()
    try disk.attach(.behind)
    try disk.write(8..<9)
  }

  private static func killAndAttach(_ disk: Recording) throws {
    for _ in 0..<3 {
      try disk.write(0..<12)
      try disk.flush()
      try disk.write(16..<20)
      try disk.discard(clusters: 0..<1)
      disk.kill()
      try disk.attach()
      try disk.write(24..<26, durable: true)
      // Unmapped durably and never punched: a hole inside the file that holds foreign bytes.
      try disk.write(32..<48)
      try disk.discard(clusters: 3..<5, durable: true)
      disk.kill()
      try disk.attach()
      try disk.write(57..<58)
      try disk.write(8..<9)
    }
  }

  private static func step(_ disk: Recording, _ random: inout SeededGenerator) throws {
    let count = disk.setup.sectorCount
    let first = Int.random(in: 0..<count, using: &random)
    let sectors = first..<min(count, first + Int.random(in: 1...12, using: &random))
    let cluster = Int.random(in: 0..<11, using: &random)
    let isDurable = Int.random(in: 0..<6, using: &random) == 0
    switch Int.random(in: 0..<10, using: &random) {
    case 0..<5: try disk.write(sectors, durable: isDurable)
    case 5: try disk.discard(clusters: cluster..<cluster + 1, durable: isDurable)
    case 6: try disk.writeZeroes(sectors, keepAllocated: Bool.random(using: &random))
    case 7 where Int.random(in: 0..<3, using: &random) == 0:
      disk.kill()
      try disk.attach()
    default: try disk.flush()
    }
  }
}
