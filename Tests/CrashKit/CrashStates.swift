package import PloopIO

/// Every content that the top's file can have when power fails at a position of a trace.
///
/// Until a sync that began after it has succeeded, a write may be on the disk or not, block by
/// block, whatever came before or after it; of a block that was written several times any version
/// may be there. The length is one of the lengths that the file has had since the last sync.
package struct CrashStates {
  private let blockBytes: Int
  /// What is durable, and its length.
  private var durable: [UInt8]
  private var pending: [(position: Int, event: IOTrace.Event)] = []

  package init(initial: [UInt8], blockBytes: Int) {
    self.blockBytes = blockBytes
    durable = initial
  }

  /// Takes the next event of the trace; `syncedUntil` is the position of the sync's beginning.
  package mutating func apply(_ event: IOTrace.Event, at position: Int, syncBegan: Int?) {
    switch event {
    case .write, .truncate, .allocate, .zero: pending.append((position, event))
    case .synced:
      guard let syncBegan else { return }
      for (position, event) in pending where position < syncBegan {
        CrashStates.perform(event, on: &durable)
      }
      pending.removeAll { $0.position < syncBegan }
    default: break
    }
  }

  /// Takes all events of one file.
  mutating func apply(_ events: [IOTrace.Event], path: String) {
    var syncBegan: Int?
    for (position, event) in events.enumerated() where event.path == path {
      if case .syncStarted = event { syncBegan = position }
      apply(event, at: position, syncBegan: syncBegan)
    }
  }

  /// Makes a state the content of the top's file.
  static func put(_ state: [UInt8], into folder: ImageFolder) throws {
    let file = try folder.open(Recording.top, writable: true)
    try file.truncate(to: 0)
    try file.write(AlignedBuffer(state).region, at: 0)
    try file.truncate(to: UInt64(state.count))
  }

  /// Calls `body` with each state if there are at most `limit`, else with nothing, everything and
  /// random choices.
  package func forEach(
    limit: Int, random: inout some RandomNumberGenerator, _ body: ([UInt8]) throws -> Void
  ) rethrows {
    try choices.forEach(limit: limit, random: &random, body)
  }

  /// The state in which nothing is lost.
  var latest: [UInt8] {
    var bytes = durable
    for (_, event) in pending { CrashStates.perform(event, on: &bytes) }
    return bytes
  }

  /// One state, chosen at random.
  func sample(using random: inout some RandomNumberGenerator) -> [UInt8] {
    choices.sample(using: &random)
  }

  /// What is left to chance now.
  var choices: Choices {
    var blocks: [Int: [[UInt8]]] = [:]
    var lengths = [durable.count]
    guard !pending.isEmpty else { return Choices(durable, blocks, lengths, blockBytes) }
    var current = durable
    for (_, event) in pending {
      let end = current.count
      CrashStates.perform(event, on: &current)
      if lengths.last != current.count { lengths.append(current.count) }
      if current.count < end {
        // Where the file is longer again, what was cut off is zero, or was never cut off.
        for block in (current.count / blockBytes)...((end - 1) / blockBytes) {
          let start = block * blockBytes
          let kept = current[min(start, current.count)...].prefix(blockBytes)
          blocks[block, default: []].append(
            kept + [UInt8](repeating: 0, count: min(blockBytes, end - start) - kept.count))
        }
      }
      guard let range = CrashStates.range(of: event) else { continue }
      for block in (range.lowerBound / blockBytes)...((range.upperBound - 1) / blockBytes) {
        let start = block * blockBytes
        guard start < current.count else { continue }
        blocks[block, default: []].append(
          Array(current[start..<min(start + blockBytes, current.count)]))
      }
    }
    return Choices(durable, blocks, lengths, blockBytes)
  }

  /// The versions of each block since the last sync, oldest first, and the lengths of the file: a state is one of
  /// each, or of a block what is durable.
  struct Choices {
    private let durable: [UInt8]
    private let blockBytes: Int
    private let blocks: [(number: Int, versions: [[UInt8]])]
    private let lengths: [Int]

    fileprivate init(
      _ durable: [UInt8], _ blocks: [Int: [[UInt8]]], _ lengths: [Int], _ blockBytes: Int
    ) {
      self.durable = durable
      self.blockBytes = blockBytes
      self.blocks = blocks.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
      self.lengths = lengths
    }

    func forEach(
      limit: Int, random: inout some RandomNumberGenerator, _ body: ([UInt8]) throws -> Void
    ) rethrows {
      var total = lengths.count
      for block in blocks where total <= limit { total *= block.versions.count + 1 }
      if total <= limit {
        for choice in 0..<total {
          var rest = choice
          let length = lengths[rest % lengths.count]
          rest /= lengths.count
          let picks = blocks.map { block -> Int in
            defer { rest /= block.versions.count + 1 }
            return rest % (block.versions.count + 1)
          }
          try body(state(picks, length))
        }
        return
      }
      for round in 0..<limit {
        // The sparser and the denser ends are where orders show: vary how much reached the disk.
        let percent = round == 0 ? 0 : round == 1 ? 100 : Int.random(in: 0...100, using: &random)
        try body(choose(percent, &random))
      }
    }

    func sample(using random: inout some RandomNumberGenerator) -> [UInt8] {
      choose(Int.random(in: 0...100, using: &random), &random)
    }

    private func choose(
      _ percent: Int, _ random: inout some RandomNumberGenerator
    ) -> [UInt8] {
      let picks = blocks.map { block -> Int in
        let count = block.versions.count
        guard Int.random(in: 0..<100, using: &random) < percent else { return 0 }
        return percent == 100 ? count : Int.random(in: 1...count, using: &random)
      }
      let length =
        percent == 100 ? lengths[lengths.count - 1] : lengths.randomElement(using: &random) ?? 0
      return state(picks, length)
    }

    private func state(_ picks: [Int], _ length: Int) -> [UInt8] {
      var bytes = durable
      if bytes.count < length {
        bytes.append(contentsOf: repeatElement(0, count: length - bytes.count))
      } else if bytes.count > length {
        bytes.removeLast(bytes.count - length)
      }
      for (block, pick) in zip(blocks, picks) where pick > 0 {
        let version = block.versions[pick - 1]
        let start = block.number * blockBytes
        let count = min(version.count, length - start)
        guard count > 0 else { continue }
        bytes.replaceSubrange(start..<(start + count), with: version.prefix(count))
      }
      return bytes
    }
  }

  private static func range(of event: IOTrace.Event) -> Range<Int>? {
    switch event {
    case .write(_, let offset, let bytes) where !bytes.isEmpty:
      return Int(offset)..<(Int(offset) + bytes.count)
    case .zero(_, let offset, let length): return Int(offset)..<Int(offset + length)
    default: return nil
    }
  }

  private static func perform(_ event: IOTrace.Event, on bytes: inout [UInt8]) {
    func extend(to count: Int) {
      if bytes.count < count {
        bytes.append(contentsOf: repeatElement(0, count: count - bytes.count))
      }
    }
    switch event {
    case .write(_, let offset, let new):
      extend(to: Int(offset) + new.count)
      bytes.replaceSubrange(Int(offset)..<(Int(offset) + new.count), with: new)
    case .truncate(_, let size):
      extend(to: Int(size))
      bytes.removeLast(bytes.count - Int(size))
    case .allocate(_, let offset, let length): extend(to: Int(offset + length))
    case .zero(_, let offset, let length):
      // The range of a punched hole never grows the file.
      let end = min(Int(offset + length), bytes.count)
      guard Int(offset) < end else { return }
      bytes.replaceSubrange(
        Int(offset)..<end, with: repeatElement(0, count: end - Int(offset)))
    default: break
    }
  }
}

extension IOTrace.Event {
  /// The file whose content the event belongs to.
  var path: String? {
    switch self {
    case .write(let path, _, _), .truncate(let path, _), .allocate(let path, _, _),
      .zero(let path, _, _), .syncStarted(let path), .synced(let path):
      return path
    default: return nil
    }
  }
}
