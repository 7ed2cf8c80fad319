package import PloopFormat

/// What is done to a disk while every system call is recorded. A later operation of the product
/// joins this list in the commit that adds it.
package enum Scenario: String, CaseIterable, Sendable {
  case firstTouch = "first touch"
  case copyOnWrite = "copy-on-write"
  case trimAndReuse = "trim and reuse"
  case zeroes = "write zeroes"
  case flushStorm = "flush storm"
  case killAndAttach = "attach after a kill"
  case mixed = "everything, at random"

  package var hasBase: Bool {
    switch self {
    case .copyOnWrite, .zeroes, .mixed: true
    default: false
    }
  }

  package var geometry: Geometry {
    // The last cluster is partial where the scenario is random.
    Geometry(
      version: self == .zeroes ? .v1 : .v2, clusterShift: 12,
      sizeBytes: 12 * 4096 - (self == .mixed ? 1024 : 0))
  }

  package func run(_ disk: Recording, seed: UInt64) throws {
    try disk.attach()
    switch self {
    case .firstTouch:
      for cluster in 0..<6 {
        try disk.write(cluster * 8 + 1..<cluster * 8 + 3)
        if cluster % 3 == 2 { try disk.flush() }
      }
      try disk.write(0..<16, durable: true)
      try disk.write(90..<92)
    case .copyOnWrite:
      try disk.write(1..<2)
      try disk.write(14..<18, durable: true)
      try disk.write(32..<40)
      try disk.flush()
      try disk.write(33..<34)
      try disk.write(60..<70)
    case .trimAndReuse:
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
    case .zeroes:
      try disk.write(0..<24)
      try disk.flush()
      try disk.writeZeroes(0..<8, keepAllocated: false)
      try disk.writeZeroes(9..<11, keepAllocated: false)
      try disk.writeZeroes(16..<24, keepAllocated: true)
      try disk.flush()
      try disk.writeZeroes(24..<44, keepAllocated: false)
      try disk.discard(clusters: 6..<8)
      try disk.flush()
    case .flushStorm:
      for round in 0..<10 {
        try disk.write(round * 8..<round * 8 + 1, durable: round % 2 == 0)
        try disk.write(0..<1)
        try disk.flush()
      }
    case .killAndAttach:
      for _ in 0..<3 {
        try disk.write(0..<12)
        try disk.flush()
        try disk.write(16..<20)
        try disk.discard(clusters: 0..<1)
        disk.kill()
        try disk.attach()
        try disk.write(24..<26, durable: true)
        try disk.write(8..<9)
      }
    case .mixed:
      var random = SplitMix(seed: seed)
      for _ in 0..<40 { try Scenario.step(disk, &random) }
    }
    try disk.detach()
  }

  private static func step(_ disk: Recording, _ random: inout SplitMix) throws {
    let count = disk.history.sectorCount
    let first = Int.random(in: 0..<count, using: &random)
    let sectors = first..<min(count, first + Int.random(in: 1...12, using: &random))
    let cluster = Int.random(in: 0..<11, using: &random)
    switch Int.random(in: 0..<10, using: &random) {
    case 0..<5: try disk.write(sectors, durable: Int.random(in: 0..<6, using: &random) == 0)
    case 5: try disk.discard(clusters: cluster..<cluster + 1)
    case 6: try disk.writeZeroes(sectors, keepAllocated: Bool.random(using: &random))
    case 7 where Int.random(in: 0..<3, using: &random) == 0:
      disk.kill()
      try disk.attach()
    default: try disk.flush()
    }
  }
}
