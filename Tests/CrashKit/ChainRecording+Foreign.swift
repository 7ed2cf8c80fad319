internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

// Another program's writes to lower deltas, recorded with ours, and what we make of them.

extension ChainRecording {
  private var tool: ForeignTool { ForeignTool(in: folder) }

  /// Another program merges a level into a neighbour's file, says so, and removes the level's own.
  private func foreignMerge(_ level: Int, _ direction: MergeDirection) throws {
    guard let device else { return }
    let descriptor = try file.read()
    let chain = try descriptor.chain(to: descriptor.topGUID)
    let neighbour = direction == .forward ? level + 1 : level - 1
    let gone = chain[direction == .forward ? level : neighbour].guid
    for number in frozen.indices where frozen[number].guid == gone {
      frozen[number].goneFrom = position
      if direction == .backward { frozen[number].spoiltFrom = position }
    }
    let merged = chain[level].file
    switch direction {
    case .forward: try tool.mergeForward(merged, into: chain[neighbour].file)
    case .backward: try tool.mergeBackward(merged, into: chain[neighbour].file)
    }
    foreign.insert(merged)
    try change.end(
      try change.takeMerged(
        device, level: level, direction, without: gone, isDescribed: false,
        until: .after(seconds: 10)))
    try folder.unlink(merged)
  }

  /// Another program moves all that a level has, says so, and uses the old places for something else.
  private func foreignMove(_ level: Int) throws {
    guard let device else { return }
    let descriptor = try file.read()
    let name = try descriptor.chain(to: descriptor.topGUID)[level].file
    let before = try tool.index(of: name)
    let clusters = before.indices.filter { before[$0] != 0 }
    let places = try tool.move(clusters, in: name)
    let moves = zip(clusters, places).map {
      IndexMove(cluster: UInt64($0), physical: UInt64($1))
    }
    _ = try device.updateIndex(
      level: level, moves, isWholeChecked: true, until: .after(seconds: 10))
    try tool.overwrite(clusters.map { before[$0] }, in: name)
  }

  /// A level's file is copied to another place, and the old one removed.
  private func foreignCopy(_ level: Int) throws {
    guard let device else { return }
    let descriptor = try file.read()
    let shot = try descriptor.chain(to: descriptor.topGUID)[level]
    foreign.formUnion(["copy.hds", "copy.hds.tmp"])
    try folder.replace("copy.hds", with: try folder.bytes(of: shot.file, limit: 1 << 20))
    foreign.insert(shot.file)
    let source = DeltaSource(
      file: try folder.open("copy.hds", writable: false), folder: folder, name: "copy.hds")
    try change.end(
      try change.replaceFile(
        device, level: level, of: shot.guid, with: source, named: "copy.hds",
        isContentChecked: true, until: .after(seconds: 10)))
    try folder.unlink(shot.file)
  }

  /// Four lower deltas, two of which other programs merge away, with guests writing.
  func runForeign() throws {
    foreignFrom = position
    try write(0..<6)
    try snapshot(Guests(ahead: [6..<7], later: 30..<31))
    try write(4..<20)
    try snapshot(Guests(ahead: [20..<21], later: 31..<32))
    try write(16..<28)
    try snapshot(Guests(ahead: [28..<29], later: 32..<33))
    try write(24..<26)
    try foreignMove(1)
    try write(5..<6)
    try foreignMerge(1, .forward)
    try write(17..<18)
    try foreignMerge(2, .backward)
    try foreignCopy(1)
    try write(9..<10, durable: true)
  }
}
