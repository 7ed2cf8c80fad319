import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("Merging the newer delta into the older one")
struct BackwardMergeTests {
  private static let cluster = 16 << 10

  @Test(
    "each index of a chain of six keeps the disk and every other state (D3)",
    arguments: [MergeDirection.forward, .backward], 0..<4)
  func everyIndex(direction: MergeDirection, level: Int) throws {
    let bench = try ChainBench(seed: UInt64(level) + 11)
    // Each level has clusters that its neighbours lack, and all of them share some.
    for number in 0..<6 {
      for cluster in [number, number + 6, 20, 21 + number % 2] {
        try bench.write(
          cluster * Self.cluster, [UInt8](repeating: UInt8(number + 1), count: Self.cluster))
      }
      try bench.write(40 * Self.cluster + number * 100, [UInt8](repeating: 9, count: 3))
      if number == 3 { try bench.zero(clusters: 7..<9) }
      if number < 5 { try bench.snapshot() }
    }
    let count = bench.device.levels().count
    try bench.merge(level: level, direction, limit: 3) { step in
      try bench.write(30 * Self.cluster, [UInt8](repeating: UInt8(step), count: 10))
      #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
    }
    #expect(bench.device.levels().count == count - 1)
    try bench.check("level \(level) \(direction)")
    try bench.exercise(10)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test(
    "keeps every state through snapshots and merges either way",
    arguments: 1...6 as ClosedRange<UInt64>)
  func random(seed: UInt64) throws {
    let bench = try ChainBench(seed: seed)
    var random = SeededGenerator(seed: seed)
    for round in 0..<16 {
      try bench.exercise(12)
      let levels = bench.device.levels().count
      if levels < 4 || Bool.random(using: &random) {
        try bench.snapshot()
      } else {
        let level = Int.random(in: 0..<levels - 2, using: &random)
        try bench.merge(level: level, .backward, limit: 5) { _ in try bench.exercise(2) }
      }
      try bench.check("round \(round), seed \(seed)")
    }
    try bench.checkSnapshots()
  }

  @Test("what the older one has is written over in place, and takes no room")
  func inPlace() throws {
    let bench = try ChainBench()
    for cluster in 0..<16 {
      try bench.write(cluster * Self.cluster, [UInt8](repeating: 7, count: Self.cluster))
    }
    try bench.snapshot()
    for cluster in 2..<6 { try bench.write(cluster * Self.cluster, [1, 2, 3]) }
    try bench.zero(clusters: 6..<7)
    try bench.write(20 * Self.cluster, [4])
    try bench.write(21 * Self.cluster, [UInt8](repeating: 0, count: Self.cluster))
    try bench.snapshot()
    let size = try DeltaMerge.size(in: bench.device, level: 0, .backward)
    #expect(size == DeltaMerge.Size(clusters: 7, newClusters: 2))
    let before = bench.device.levels()[0].fileBytes
    let (progress, total) = try bench.merge(level: 0, .backward)
    #expect(total == 7)
    #expect(progress.copied == 6)
    // All zero, and nothing beneath it.
    #expect(progress.dropped == 1)
    #expect(bench.device.levels()[0].fileBytes == before + UInt64(Self.cluster))
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test(
    "a merge that is given up at any step leaves a chain that either direction makes whole",
    arguments: [MergeDirection.forward, .backward])
  func abandoned(then direction: MergeDirection) throws {
    let bench = try ChainBench(seed: 5)
    try bench.exercise(20)
    let given = try bench.snapshot()
    try bench.exercise(20)
    try bench.snapshot()
    try bench.exercise(8)
    for steps in 0..<4 {
      let merge = try DeltaMerge(of: bench.device, level: 0, .backward)
      for _ in 0..<steps { _ = try merge.step(limit: 3, on: bench.engine) }
      merge.abandon(until: .after(seconds: 20))
      bench.forget(given)
      try bench.check("after \(steps) steps")
      try bench.exercise(2)
    }
    try bench.merge(level: 0, direction)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("the top and what is above it, a raw base and levels that are not there are refused")
  func refused() throws {
    let bench = try ChainBench()
    try bench.exercise(10)
    try bench.snapshot()
    try bench.exercise(10)
    for level in [-1, 0, 1, 2, Int.max] {
      #expect(throws: DeviceError.self, "level \(level)") {
        try DeltaMerge(of: bench.device, level: level, .backward)
      }
    }
    try bench.check()
    try bench.device.close()

    let fixture = try DiskFixture()
    let geometry = bench.geometry
    try fixture.folder.create("raw").truncate(to: geometry.sizeBytes)
    for name in ["one", "top"] { try fixture.make(name, geometry) }
    let device = try fixture.attach(["raw", "one", "top"], raw: ["raw"])
    let refusal = #expect(throws: DeviceError.self) {
      try DeltaMerge(of: device, level: 0, .backward)
    }
    var isRawRefused = false
    if case .rawNotBase? = refusal?.kind { isRawRefused = true }
    #expect(isRawRefused, "it is refused with \(String(describing: refusal))")
    try device.close()
  }

  @Test("a change that is refused at the end sends readers back to the newer delta")
  func timeout() throws {
    let bench = try ChainBench(seed: 3)
    try bench.exercise(20)
    let given = try bench.snapshot()
    try bench.exercise(20)
    try bench.snapshot()
    let merge = try DeltaMerge(of: bench.device, level: 0, .backward)
    while try merge.step(limit: 4, on: bench.engine) != nil {}
    let pass = try bench.device.admitted()
    var changed = try bench.file.read()
    let chain = try changed.chain(to: changed.topGUID)
    _ = try changed.mergeIntoParent(chain[1].guid)
    #expect(throws: DeviceError.self) {
      try merge.finish(
        descriptor: bench.file, becoming: changed, until: .after(milliseconds: 20))
    }
    bench.device.gate.leave(pass)
    merge.abandon(until: .after(seconds: 20))
    bench.forget(given)
    try bench.check()
    #expect(bench.device.levels().count == 3)
    try bench.merge(level: 0, .backward)
    try bench.check()
    try bench.checkSnapshots()
  }
}
