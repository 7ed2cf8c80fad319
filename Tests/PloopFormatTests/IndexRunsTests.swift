import PloopFormat
import TestSupport
import Testing

@Suite("Runs of an index")
struct IndexRunsTests {
  /// What a look at each entry finds.
  private func singly(
    _ entries: [UInt32], from first: UInt64, _ geometry: Geometry, fileClusters: UInt64
  ) -> [IndexRuns.Element] {
    entries.enumerated().compactMap { index, entry in
      guard entry != 0 else { return nil }
      let cluster = first + UInt64(index)
      switch geometry.physical(of: entry, cluster: cluster, fileClusters: fileClusters) {
      case .failure(let fault): return .fault(fault)
      case .success(let physical):
        return .run(IndexRun(cluster: cluster, physical: physical, count: 1))
      }
    }
  }

  /// - Returns: what is found, the runs cut into clusters; and how many runs there were.
  private func together(
    _ entries: [UInt32], from first: UInt64, _ geometry: Geometry, fileClusters: UInt64
  ) -> ([IndexRuns.Element], runs: Int) {
    var words = entries.map(\.littleEndian)
    var found: [IndexRuns.Element] = []
    var count = 0
    words.withUnsafeMutableBytes { bytes in
      var runs = IndexRuns(bytes, from: first, geometry, fileClusters: fileClusters)
      while let element = runs.next() {
        guard case .run(let run) = element else {
          found.append(element)
          continue
        }
        count += 1
        for step in 0..<run.count {
          found.append(
            .run(IndexRun(cluster: run.cluster + step, physical: run.physical + step, count: 1)))
        }
      }
    }
    return (found, count)
  }

  @Test("find what a look at each entry finds", arguments: [ImageVersion.v1, .v2])
  func random(version: ImageVersion) {
    let seed = UInt64.random(in: 0...UInt64.max)
    print("seed of the runs: \(seed)")
    var generator = SeededGenerator(seed: seed)
    for round in 0..<400 {
      let geometry = Geometry(
        version: version, clusterShift: [12, 16, 20].randomElement(using: &generator) ?? 16,
        sizeBytes: 32 << 20)
      // Once in a while as long as entries can name, where they are the largest.
      let limit = geometry.physicalLimit + 1
      let fileClusters =
        round % 3 == 0 ? limit : UInt64.random(in: 2...400, using: &generator)
      var next = UInt64.random(in: 0...fileClusters, using: &generator)
      if round % 3 == 0 { next = limit - min(limit, UInt64.random(in: 0...40, using: &generator)) }
      let entries = (0..<200).map { _ -> UInt32 in
        switch Int.random(in: 0..<40, using: &generator) {
        case 0: return 0
        case 1: return .max
        case 2: return UInt32.random(in: 0 ... .max, using: &generator)
        case 3: next = UInt64.random(in: 0..<limit, using: &generator)
        default: next += 1
        }
        return next < limit ? geometry.entry(of: next) : .max
      }
      let wanted = singly(entries, from: 77, geometry, fileClusters: fileClusters)
      let (found, _) = together(entries, from: 77, geometry, fileClusters: fileClusters)
      #expect(found == wanted, "round \(round)")
    }
  }

  @Test("are as long as they can be")
  func length() {
    let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 1 << 30)
    let entries = (10..<510).map { UInt32($0) } + [0, 0] + (510..<520).map { UInt32($0) }
    #expect(together(entries, from: 0, geometry, fileClusters: 1_000).runs == 2)
    // The file ends within the first one.
    let (found, runs) = together(entries, from: 0, geometry, fileClusters: 300)
    #expect(runs == 1 && found.count == 510)
    #expect(together([], from: 0, geometry, fileClusters: 300).0.isEmpty)
  }
}
