internal import PloopDevice

/// What is done to a chain while it is recorded.
package struct ChainScenario: Sendable {
  package private(set) var name: String
  /// Of what snapshots do at the same time.
  private var order = ChainRecording.Order.late
  private let clusters: ClosedRange<UInt64>
  private var keepsBitmapsInImage = false
  private let sharesBlocks: Bool
  private let steps: @Sendable (ChainRecording) throws -> Void

  init(
    name: String, clusters: ClosedRange<UInt64>, sharesBlocks: Bool = false,
    steps: @escaping @Sendable (ChainRecording) throws -> Void
  ) {
    self.name = name
    self.clusters = clusters
    self.sharesBlocks = sharesBlocks
    self.steps = steps
  }

  private var withBitmapsInImage: ChainScenario {
    var same = self
    same.keepsBitmapsInImage = true
    return same
  }

  func inOrder(_ order: ChainRecording.Order) -> ChainScenario {
    var same = self
    same.name += ", \(order)"
    same.order = order
    return same
  }

  /// - Parameter path: an empty folder.
  package func recording(path: String) throws -> ChainRecording {
    let recording = try ChainRecording(
      path: path, order, clusters: clusters, sharesBlocks: sharesBlocks)
    recording.keepsBitmapsInImage = keepsBitmapsInImage
    return recording
  }

  package func run(_ recording: ChainRecording) throws { try steps(recording) }

  /// The first has guests at every moment of its snapshots, and is looked at in all orders.
  package static let all =
    ChainRecording.Order.all.map(changes.inOrder) + [
      backward, growth, flipping, resize, restoring, compaction, bitmaps, sharing,
    ]
    + [ChainRecording.Order.early, .late].map(checkpoints.inOrder)

  /// Each in one order, for builds that are slow.
  package static let each =
    [changes.inOrder(.mixed(seed: 1)), checkpoints.inOrder(.late)]
    + [backward, growth, flipping, resize, restoring, compaction, bitmaps, sharing]

  /// Snapshots, merges forward, going back and removing, with guests writing.
  package static let changes = ChainScenario(name: "changes of a chain", clusters: 12...12) {
    disk in
    try disk.attach()
    try disk.write(0..<30)
    try disk.flush()
    try disk.write(3..<5)
    // In place, and a first touch; then a copy of what is not yet in any file, and one that is.
    let first = try disk.snapshot(
      .init(ahead: [2..<4, 72..<74], opening: [73..<74, 17..<18], flushes: true, later: 86..<88))
    try disk.write(8..<12)
    try disk.write(40..<41, durable: true)
    try disk.zero(clusters: 2..<3)
    // First touches, and a copy from below, one of which is overwritten and trimmed at once.
    let second = try disk.snapshot(
      .init(
        ahead: [24..<34, 56..<58], opening: [56..<57], trimmed: 7..<8, flushes: true,
        later: 90..<92))
    try disk.write(16..<20)
    try disk.write(50..<60)
    try disk.merge(second) { try disk.write(45..<47) }
    try disk.write(46..<47)
    let third = try disk.snapshot(.init(ahead: [44..<46], opening: [43..<45], later: 64..<66))
    try disk.write(60..<64)
    let fourth = try disk.snapshot(
      .init(ahead: [5..<20], opening: [60..<66], trimmed: 0..<1, later: 75..<77))
    try disk.write(0..<2)
    // Of two lower deltas: the receiver is not the top.
    try disk.merge(third) { try disk.write(20..<21) }
    let kept = try disk.switchTop(to: first, keep: true)
    try disk.write(70..<80)
    try disk.switchTop(to: first, keep: false)
    try disk.write(8..<9, durable: true)
    if let kept { try disk.removeLeaf(kept) }
    try disk.removeLeaf(fourth)
    try disk.runForeign()
    try disk.merge(first)
    try disk.detach()
  }

  /// Checkpoints that begin, go and are kept through whatever else happens to the disk.
  package static let checkpoints = ChainScenario(name: "checkpoints", clusters: 12...12) { disk in
    try disk.attach()
    try disk.write(0..<30)
    try disk.flush()
    try disk.checkpoint("one")
    try disk.write(24..<25)
    let first = try disk.snapshot()
    try disk.write(8..<12)
    try disk.write(40..<41, durable: true)
    try disk.write(42..<43)
    let second = try disk.snapshot(
      .init(
        ahead: [41..<42, 48..<50], opening: [49..<50, 8..<9], flushes: true, later: 10..<11),
      beginning: "two")
    try disk.write(16..<20)
    try disk.zero(clusters: 2..<3)
    try disk.removeCheckpoint("one")
    try disk.merge(second) { try disk.write(45..<47) }
    try disk.checkpoint("three")
    try disk.detach()
    try disk.attach()
    try disk.write(90..<91)
    let third = try disk.snapshot(.init(ahead: [64..<66], opening: [65..<67], later: 80..<81))
    try disk.write(60..<64)
    try disk.merge(first, .backward) { try disk.write(70..<71) }
    try disk.removeCheckpoint("two")
    try disk.checkpoint("four")
    try disk.write(36..<37)
    try disk.renameCheckpoint("four", to: "three")
    let fourth = try disk.snapshot()
    try disk.write(33..<34)
    try disk.flip(fourth)
    try disk.write(34..<35)
    try disk.merge(fourth)
    try disk.removeCheckpoint("three")
    try disk.switchTop(to: third, keep: false)
    try disk.write(8..<9, durable: true)
    try disk.checkpoint("five")
    try disk.write(72..<73)
    try disk.detach()
  }

  /// Checkpoints that a closed image holds itself, and that are taken from it where nothing else has them.
  package static let bitmaps = ChainScenario(
    name: "checkpoints in the image", clusters: 12...12
  ) { disk in
    let one = "11111111-1111-1111-1111-111111111111"
    let two = "22222222-2222-2222-2222-222222222222"
    try disk.attach()
    try disk.write(0..<30)
    try disk.flush()
    try disk.checkpoint(one)
    try disk.write(24..<25)
    try disk.write(60..<62)
    try disk.detach()
    try disk.attach()
    try disk.write(8..<12)
    try disk.detach()
    try disk.loseCheckpointFile()
    try disk.attach()
    try disk.write(40..<41, durable: true)
    try disk.checkpoint(two)
    try disk.zero(clusters: 2..<3)
    let first = try disk.snapshot()
    try disk.write(88..<91)
    try disk.detach()
    try disk.loseCheckpointFile()
    try disk.attach()
    try disk.write(2..<3)
    try disk.merge(first) { try disk.write(45..<47) }
    try disk.removeCheckpoint(one)
    try disk.detach()
    try disk.attach()
    try disk.write(72..<73)
    try disk.detach()
  }.withBitmapsInImage

  /// Merges into the older delta, whole ones and half ones, with guests writing.
  package static let backward = ChainScenario(name: "merging backward", clusters: 12...12) { disk in
    try disk.attach()
    try disk.write(0..<30)
    let first = try disk.snapshot()
    // Over what the older one has, beside it, and zero.
    try disk.write(4..<20)
    try disk.write(40..<50)
    try disk.zero(clusters: 3..<4)
    try disk.zero(clusters: 8..<9)
    let second = try disk.snapshot()
    try disk.write(10..<12, durable: true)
    try disk.write(60..<70)
    let third = try disk.snapshot()
    try disk.write(14..<15)
    try disk.giveUp(first, steps: 1)
    try disk.write(42..<43)
    try disk.merge(first, .backward) { try disk.write(80..<82) }
    try disk.write(0..<1, durable: true)
    try disk.merge(second, .backward) { try disk.write(61..<62) }
    try disk.merge(third) { try disk.write(33..<34) }
    try disk.detach()
  }

  /// A merge into an older delta of a smaller disk, whose index needs another cluster.
  package static let growth = ChainScenario(
    name: "a lower delta grows", clusters: 1000...1020, sharesBlocks: true
  ) {
    disk in
    try disk.attach()
    try disk.write(0..<20)
    try disk.write(7_990..<8_000)
    let first = try disk.snapshot()
    try disk.grow(toClusters: 1020)
    try disk.write(10..<12)
    try disk.write(8_150..<8_160)
    let second = try disk.snapshot()
    try disk.write(4..<5, durable: true)
    try disk.merge(first, .backward) { try disk.write(8_060..<8_061) }
    try disk.write(8_150..<8_151)
    try disk.merge(second)
    try disk.detach()
  }

  /// The top and the delta below it change places, there and back, and are merged then.
  package static let flipping = ChainScenario(name: "the top changes places", clusters: 12...12) {
    disk in
    try disk.attach()
    try disk.write(0..<20)
    try disk.write(40..<48)
    let first = try disk.snapshot()
    try disk.write(4..<20)
    try disk.write(60..<70)
    let second = try disk.snapshot()
    // Over what the one below has, over what only the oldest has, beside both, and zero.
    try disk.write(10..<14)
    try disk.write(42..<43, durable: true)
    try disk.write(80..<90)
    try disk.zero(clusters: 8..<9)
    try disk.flip(second)
    try disk.write(12..<13)
    try disk.write(82..<83)
    try disk.write(30..<34, durable: true)
    try disk.merge(second) { try disk.write(85..<86) }
    try disk.write(5..<6)
    try disk.flip(first)
    try disk.write(6..<7)
    try disk.flip(first)
    try disk.write(64..<66)
    try disk.merge(first)
    try disk.detach()
  }

  /// The disk grows while it is written: within its index, over a cluster that is in the way of a longer
  /// one, and over one that was just given back.
  package static let resize = ChainScenario(name: "a larger disk", clusters: 1000...1020) { disk in
    try disk.attach()
    try disk.write(0..<20)
    try disk.checkpoint("first")
    try disk.grow(toClusters: 1006)
    try disk.write(8_040..<8_048)
    let first = try disk.snapshot()
    try disk.write(2..<12)
    try disk.write(8_030..<8_034, durable: true)
    try disk.grow(toClusters: 1012) { try disk.write(3..<6) }
    try disk.write(8_090..<8_096)
    try disk.write(9..<10, durable: true)
    try disk.giveUpGrowing(toClusters: 2_040, steps: 1)
    try disk.write(10..<11)
    try disk.switchTop(to: first, keep: false)
    try disk.write(40..<44)
    try disk.flush()
    try disk.zero(clusters: 5..<6)
    try disk.write(2..<12)
    try disk.grow(toClusters: 1012)
    try disk.write(8_090..<8_092)
    let second = try disk.snapshot()
    try disk.grow(toClusters: 1020)
    try disk.write(8_150..<8_151)
    try disk.merge(first, .backward) { try disk.write(8_100..<8_101) }
    try disk.merge(second)
    try disk.detach()
  }

  /// The top's file becomes smaller while guests write, in all of its ways, whole ones and half ones: over
  /// nothing, and over what a snapshot has.
  package static let compaction = ChainScenario(name: "a smaller file", clusters: 12...12) { disk in
    try disk.attach()
    // Not in the order of the disk, and with free places between.
    for cluster in [9, 2, 7, 0, 4, 11, 5] { try disk.write(cluster * 8..<cluster * 8 + 8) }
    try disk.flush()
    try disk.zero(clusters: 2..<3)
    try disk.zero(clusters: 7..<8)
    try disk.flush()
    try disk.compact([.shrink]) { try disk.write(88..<90) }
    try disk.write(24..<32)
    try disk.write(90..<92, durable: true)
    try disk.writeZeroBytes(clusters: 3..<5)
    try disk.compact([.zeroes, .shrink]) { try disk.write(32..<33) }
    try disk.compact([.defragment, .shrink, .holes]) {
      try disk.write(2..<3)
      try disk.write(45..<46)
    }
    let first = try disk.snapshot()
    for cluster in [10, 1, 8, 5, 3] { try disk.write(cluster * 8..<cluster * 8 + 8) }
    // Over what the snapshot has, and over nothing.
    try disk.writeZeroBytes(clusters: 5..<6)
    try disk.writeZeroBytes(clusters: 8..<9)
    try disk.compact([.zeroes, .defragment], steps: 2)
    try disk.write(12..<14)
    try disk.detach()
    try disk.attach()
    try disk.zero(clusters: 10..<11)
    try disk.compact(Set(Compaction.Part.allCases)) { try disk.write(26..<28, durable: true) }
    try disk.write(60..<61)
    try disk.merge(first)
    try disk.compact(Set(Compaction.Part.allCases))
    try disk.detach()
  }

  /// What copies whole clusters, on a host where they are shared instead; growth is another scenario of such a host.
  package static let sharing = ChainScenario(
    name: "shared blocks", clusters: 12...12, sharesBlocks: true
  ) { disk in
    try disk.attach()
    try disk.write(0..<30)
    try disk.flush()
    let first = try disk.snapshot()
    try disk.write(3..<5)
    try disk.write(14..<18, durable: true)
    let second = try disk.snapshot()
    try disk.write(20..<21)
    try disk.zero(clusters: 3..<4)
    try disk.write(64..<72)
    let third = try disk.snapshot()
    try disk.write(10..<11)
    try disk.merge(second, .backward) { try disk.write(12..<13) }
    try disk.merge(first) { try disk.write(60..<61) }
    try disk.write(22..<23, durable: true)
    try disk.merge(third) { try disk.write(5..<6) }
    try disk.zero(clusters: 0..<2)
    try disk.flush()
    try disk.compact([.shrink]) { try disk.write(66..<67) }
    try disk.write(0..<2)
    try disk.compact([.defragment])
    try disk.detach()
  }

  /// Restores into the disk: with nothing below its top, over a snapshot, to a larger one, in one go and
  /// piece by piece.
  package static let restoring = ChainScenario(name: "restoring", clusters: 12...14) { disk in
    try disk.attach()
    try disk.write(0..<30)
    try disk.checkpoint("one")
    try disk.restore([0, 1, 5])
    try disk.write(3..<5)
    try disk.write(90..<92)
    let first = try disk.snapshot()
    try disk.write(40..<50)
    try disk.checkpoint("two")
    try disk.write(8..<9, durable: true)
    // The snapshot has clusters that the point has not.
    try disk.restore([1, 7, 13], of: 14, stops: 1)
    try disk.write(20..<21)
    let second = try disk.snapshot()
    try disk.write(8..<9)
    try disk.restore([], stops: 2)
    try disk.write(64..<66)
    try disk.merge(second) { try disk.write(45..<47) }
    try disk.merge(first)
    try disk.detach()
  }
}
