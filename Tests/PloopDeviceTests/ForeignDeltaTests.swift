import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

/// A chain of five lower deltas and a top, with content at random, that another program writes meanwhile.
final class ForeignBench {
  static let clusters = 96
  static let cluster = 4096
  let fixture: DiskFixture
  let device: Device
  let tool: ForeignTool
  private(set) var names = ["d0", "d1", "d2", "d3", "d4", "top"]
  private(set) var content: [UInt8]

  /// - Parameters:
  ///   - raw: whether the oldest is a raw file of two thirds of the disk.
  ///   - indexCache: has room for all of the map, unless it is said: what is not in memory is what the files say, also
  ///     where another program has not told yet what it has done to them.
  init(
    seed: UInt64, raw: Bool = false,
    indexCache: FramePool = FramePool(budgetBytes: AttachOptions.indexCacheBytes)
  ) throws {
    fixture = try DiskFixture(indexCache: indexCache)
    tool = ForeignTool(in: fixture.folder)
    var random = SeededGenerator(seed: seed)
    let geometry = Geometry(
      version: .v2, clusterShift: 12, sizeBytes: UInt64(Self.clusters * Self.cluster))
    content = [UInt8](repeating: 0, count: Self.clusters * Self.cluster)
    for (level, name) in names.enumerated() {
      if raw, level == 0 {
        for place in 0..<Self.clusters * 2 / 3 * Self.cluster { content[place] = 1 }
        try fixture.folder.replace(
          name, with: Array(content[..<(Self.clusters * 2 / 3 * Self.cluster)]))
        continue
      }
      try fixture.make(name, geometry)
      let image = try fixture.attach([name], locks: [])
      for cluster in 0..<Self.clusters where Int.random(in: 0..<4, using: &random) == 0 {
        let bytes = [UInt8](repeating: UInt8(level * 40 + cluster % 40 + 1), count: Self.cluster)
        try image.put(bytes, at: UInt64(cluster * Self.cluster))
        content.replaceSubrange(
          cluster * Self.cluster..<(cluster + 1) * Self.cluster, with: bytes)
      }
      try image.close()
    }
    device = try fixture.attach(names, raw: raw ? ["d0"] : [], locks: [])
  }

  func merge(_ level: Int, _ direction: MergeDirection) throws {
    switch direction {
    case .forward: try tool.mergeForward(names[level], into: names[level + 1])
    case .backward: try tool.mergeBackward(names[level], into: names[level - 1])
    }
  }

  func notify(
    _ level: Int, _ direction: MergeDirection,
    at moment: ([Device.LevelStatus]) throws(DeviceError) -> Void = { _ in }
  ) throws {
    _ = try device.takeMerged(
      level: level, direction, until: .after(seconds: 20), at: moment)
    names.remove(at: level)
  }

  func update(_ level: Int, _ moves: [(Int, UInt32)], whole: Bool = true) throws -> Int {
    try device.updateIndex(
      level: level, moves.map { IndexMove(cluster: UInt64($0.0), physical: UInt64($0.1)) },
      isWholeChecked: whole, until: .after(seconds: 20))
  }

  func write(_ cluster: Int) throws {
    let bytes = [UInt8](repeating: 0xF0, count: 100)
    try device.put(bytes, at: UInt64(cluster * Self.cluster + 7))
    content.replaceSubrange(cluster * Self.cluster + 7..<cluster * Self.cluster + 107, with: bytes)
  }

  func check(_ note: Comment? = nil) throws {
    #expect(try device.bytes(0, content.count) == content, note)
    try device.flush()
    try expectRebuilt(device, note)
    #expect(
      device.levels().map { String($0.path.split(separator: "/").last ?? "") } == names, note)
  }

  /// The owner and place of each cluster, as it is now.
  var places: [Place?] { (0..<UInt64(Self.clusters)).map { try? device.map.place(of: $0) } }

  /// Clusters that are read from a level.
  func owned(_ level: Int) -> [Int] {
    let number = device.chain.deltas[level].number
    return (0..<Self.clusters).filter { (try? device.map.place(of: UInt64($0)))?.delta == number }
  }

  func shadowed(_ level: Int) throws -> [Int] {
    let own = owned(level)
    return try tool.index(of: names[level]).enumerated()
      .filter { $0.element != 0 && !own.contains($0.offset) }.map(\.offset)
  }

  func refusal(_ body: () throws -> Void) throws -> String {
    do { try body() } catch let error as DeviceError {
      switch error.kind {
      case .refused(let refusal, let entry):
        return entry.map { "\(refusal.rawValue) \($0)" } ?? refusal.rawValue
      case .format(let format, _): return format.code.rawValue
      default: return "\(error.kind)"
      }
    }
    return "none"
  }
}

@Suite("Deltas that other programs write")
struct ForeignDeltaTests {
  // MARK: Merged

  static let pairs: [(Int, MergeDirection)] =
    (0...3).map { ($0, .forward) } + (1...4).map { ($0, .backward) }

  @Test(
    "each level of a chain of six, merged either way: the map is as if made from the files (D3)",
    arguments: pairs, [1, 2, 3] as [UInt64])
  func merged(pair: (level: Int, direction: MergeDirection), seed: UInt64) throws {
    let bench = try ForeignBench(seed: seed, indexCache: .ofTests)
    let (level, direction) = pair
    // What made the driver's map wrong: clusters of higher levels that the receiver has not.
    let neighbour = direction == .forward ? level + 1 : level - 1
    let receiver = try bench.tool.index(of: bench.names[neighbour])
    #expect(
      max(level, neighbour) == 4 || bench.owned(4).contains { receiver[$0] == 0 }, "seed \(seed)")
    try bench.merge(level, direction)
    // The files have changed, and nothing that is read has.
    #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
    for cluster in bench.owned(level).prefix(2) { try bench.write(cluster) }
    try bench.notify(level, direction)
    try bench.check("level \(level), \(direction), seed \(seed)")
    for cluster in bench.owned(min(level, 3)).prefix(2) { try bench.write(cluster) }
    try bench.check()
    try bench.device.close()
    let again = try bench.fixture.attach(bench.names, locks: [])
    #expect(try again.bytes(0, bench.content.count) == bench.content)
    try again.close()
  }

  @Test(
    "one after another until two are left, in any order", arguments: 1...4 as ClosedRange<UInt64>)
  func all(seed: UInt64) throws {
    let bench = try ForeignBench(seed: seed, raw: seed % 2 == 0, indexCache: .ofTests)
    var random = SeededGenerator(seed: seed)
    while bench.names.count > 3 {
      let newest = bench.names.count - 2
      let isForward = Bool.random(using: &random)
      // The tool does not write raw files.
      let lowest = seed % 2 == 0 ? 2 : 1
      let level =
        isForward
        ? Int.random(in: 0..<newest, using: &random)
        : Int.random(in: min(lowest, newest)...newest, using: &random)
      guard isForward ? !(seed % 2 == 0 && level == 0) : level >= lowest else { continue }
      try bench.merge(level, isForward ? .forward : .backward)
      try bench.notify(level, isForward ? .forward : .backward)
      try bench.check("level \(level), \(isForward), seed \(seed)")
    }
    try bench.device.close()
  }

  @Test("a raw base is merged into the one above, and one into a raw base that grows")
  func raw() throws {
    let bench = try ForeignBench(seed: 5, raw: true)
    // As a program would: the raw file gets what level 1 has, and ends where that does.
    let file = try bench.fixture.folder.open("d0", writable: true)
    let image = try bench.fixture.folder.open("d1", writable: false)
    let buffer = AlignedBuffer(count: ForeignBench.cluster)
    for (cluster, place) in try bench.tool.index(of: "d1").enumerated() where place != 0 {
      try image.readOrZero(into: buffer.region, at: UInt64(place) * 4096)
      try file.write(buffer.region, at: UInt64(cluster * ForeignBench.cluster))
    }
    try file.truncate(to: UInt64(ForeignBench.clusters * ForeignBench.cluster))
    try bench.notify(1, .backward)
    try bench.check("into a raw base")
    try bench.device.close()
  }

  @Test("a direction, a level or a file that is wrong is refused, and nothing changes (D4)")
  func refusedMerges() throws {
    let bench = try ForeignBench(seed: 9)
    let before = bench.places
    func expect(
      _ level: Int, _ direction: MergeDirection, _ reason: String,
      _ location: SourceLocation = #_sourceLocation
    ) throws {
      let given = try bench.refusal { try bench.notify(level, direction) }
      #expect(given == reason, sourceLocation: location)
      #expect(bench.places == before, sourceLocation: location)
      #expect(bench.device.levels().count == 6, sourceLocation: location)
      #expect(
        try bench.device.bytes(0, bench.content.count) == bench.content, sourceLocation: location)
    }
    try expect(4, .forward, "merge-direction-invalid")
    try expect(0, .backward, "merge-direction-invalid")
    for direction in [MergeDirection.forward, .backward] {
      try expect(5, direction, "delta-is-top")
      for level in [-1, 6, 255, 256, 257, Int.max, Int.min] {
        try expect(level, direction, "delta-not-found")
      }
      // Nobody has merged anything.
      try expect(2, direction, "index-mismatch")
    }
    let index = try bench.tool.index(of: "d3")
    try bench.merge(2, .forward)
    let merged = try bench.tool.index(of: "d3")
    let copied = try #require((0..<96).first { index[$0] == 0 && merged[$0] != 0 })
    let own = try #require(bench.owned(3).first)
    let foreign = try #require(bench.owned(0).first { merged[$0] == 0 })
    // One is missing, one's own is gone, one names another's place or none, one is too many.
    for (entry, reason) in [
      ([copied: 0], "index-mismatch"), ([own: 0], "index-mismatch"),
      ([copied: merged[own]], "image-corrupt"), ([copied: 0], "index-mismatch"),
      ([copied: 1 << 20], "image-corrupt"), ([copied: .max], "image-corrupt"),
      ([foreign: 200], "image-corrupt"),
    ] as [([Int: UInt32], String)] {
      try bench.tool.set(entry, in: "d3")
      try expect(2, .forward, reason)
      try bench.tool.set([copied: merged[copied], own: merged[own], foreign: 0], in: "d3")
    }
    let more = try bench.tool.move([own], in: "d3")
    try bench.tool.set([own: merged[own], foreign: more[0]], in: "d3")
    try expect(2, .forward, "index-mismatch")
    try bench.tool.set([foreign: 0], in: "d3")
    // Not closed.
    let file = try bench.fixture.folder.open("d3", writable: true)
    var header = try Device.header(of: file)
    header.inUse = Header.InUse.open
    try Device.write(header, to: file)
    try expect(2, .forward, "image-unclean")
    header.inUse = Header.InUse.closed
    try Device.write(header, to: file)
    // Another file in its place.
    let bytes = try bench.fixture.folder.bytes(of: "d3", limit: 4 << 20)
    try bench.fixture.folder.rename("d3", to: "kept")
    try bench.fixture.folder.replace("d3", with: bytes)
    try expect(2, .forward, "index-mismatch")
    try bench.fixture.folder.rename("kept", to: "d3")
    let unrecorded = try bench.refusal {
      try bench.notify(2, .forward) { _ throws(DeviceError) in
        throw DeviceError(.refused(.unrecorded), "no")
      }
    }
    #expect(unrecorded == "io-error")
    #expect(bench.places == before)
    // And then it is taken, moved clusters of the receiver's own included.
    try bench.tool.move([own], in: "d3")
    try bench.notify(2, .forward)
    try bench.check()
    try bench.device.close()
  }

  @Test("one that does not drain is refused in time, and is as it was")
  func timeout() throws {
    let bench = try ForeignBench(seed: 3)
    try bench.merge(1, .backward)
    let moved = try #require(bench.owned(2).first)
    let places = try bench.tool.move([moved], in: "d2")
    let before = bench.places
    let pass = try bench.device.admitted()
    for body in [
      {
        _ = try bench.device.takeMerged(
          level: 1, .backward, until: .after(milliseconds: 20)
        ) { _ throws(DeviceError) in }
      },
      {
        _ = try bench.device.updateIndex(
          level: 2, [IndexMove(cluster: UInt64(moved), physical: UInt64(places[0]))],
          isWholeChecked: true, until: .after(milliseconds: 20))
      },
    ] as [() throws -> Void] {
      #expect(try bench.refusal(body) == "timeout")
      #expect(bench.places == before)
    }
    bench.device.gate.leave(pass)
    #expect(try bench.update(2, [(moved, places[0])]) == 1)
    try bench.notify(1, .backward)
    try bench.check()
    try bench.device.close()
  }

  // MARK: Moved

  @Test("moved clusters are read from their new places, shadowed ones are skipped (D5)")
  func moved() throws {
    let bench = try ForeignBench(seed: 11)
    for level in 0...4 {
      let own = Array(bench.owned(level).prefix(3))
      let hidden = Array(try bench.shadowed(level).prefix(2))
      let old = try bench.tool.index(of: bench.names[level])
      let clusters = (own + hidden).shuffled()
      let places = try bench.tool.move(clusters, in: bench.names[level])
      let moves = Array(zip(clusters, places))
      #expect(try bench.update(level, moves) == own.count)
      // Whoever asked may use the old places now.
      try bench.tool.overwrite(clusters.map { old[$0] }, in: bench.names[level])
      try bench.check("level \(level)")
      // The same again is the same.
      #expect(try bench.update(level, moves, whole: false) == own.count)
      #expect(try bench.update(level, []) == 0)
      try bench.check("level \(level)")
    }
    try bench.device.close()
  }

  @Test("a bad pair anywhere leaves all of them as they were (D5)", arguments: 0..<5)
  func refusedMoves(position: Int) throws {
    let bench = try ForeignBench(seed: 12)
    let clusters = Array(bench.owned(4).prefix(4))
    let places = try bench.tool.move(clusters, in: "d4")
    let good = Array(zip(clusters, places))
    let own = try #require(bench.owned(4).last)
    let present = try bench.tool.index(of: "d4")[own]
    let unmapped = try #require(
      (0..<96).first { try bench.device.map.place(of: UInt64($0)) == nil })
    let other = try #require(bench.owned(1).first)
    let before = bench.places
    for (pair, reason) in [
      ((96, places[0]), "cluster-out-of-range"), ((Int.max, places[0]), "cluster-out-of-range"),
      ((own, 0), "cluster-out-of-range"), ((own, UInt32.max), "cluster-out-of-range"),
      ((own, 1 << 20), "cluster-out-of-range"), ((unmapped, present - 1), "cluster-not-mapped"),
      ((own, present - 1), "index-mismatch"), ((other, present), "index-mismatch"),
      ((clusters[0], present), "invalid-value"), ((own, places[3]), "invalid-value"),
    ] as [((Int, UInt32), String)] {
      var pairs = good
      pairs.insert(pair, at: min(position, 4))
      let given = try bench.refusal { _ = try bench.update(4, pairs) }
      #expect(given.hasPrefix("\(reason) "), "\(pair): \(given)")
      // The second of two that are the same is the one that is named.
      if reason != "invalid-value" { #expect(given == "\(reason) \(position)") }
      #expect(bench.places == before, "\(pair)")
    }
    #expect(try bench.update(4, good) == 4)
    try bench.check()
    try bench.device.close()
  }

  @Test("a level that has no index to move in, or a file that breaks the format, is refused")
  func refusedLevels() throws {
    let bench = try ForeignBench(seed: 13, raw: true)
    let before = bench.places
    func expect(_ level: Int, _ reason: String, whole: Bool = true) throws {
      let given = try bench.refusal { _ = try bench.update(level, [], whole: whole) }
      #expect(given == reason, "\(level)")
      #expect(bench.places == before)
    }
    try expect(0, "raw-not-allowed")
    try expect(5, "delta-is-top")
    for level in [-1, 6, 256, Int.max] { try expect(level, "delta-not-found") }
    let tooMany = [IndexMove](
      repeating: IndexMove(cluster: 1, physical: 1), count: Device.indexMoveLimit + 1)
    let given = try bench.refusal {
      _ = try bench.device.updateIndex(
        level: 1, tooMany, isWholeChecked: true, until: .after(seconds: 20))
    }
    #expect(given == "invalid-value")
    let index = try bench.tool.index(of: "d2")
    let two = index.indices.filter { index[$0] != 0 }.prefix(2)
    try bench.tool.set([two[two.startIndex]: index[two[two.startIndex + 1]]], in: "d2")
    try expect(2, "image-corrupt")
    try expect(2, "none", whole: false)
    try bench.device.close()
  }

  @Test(
    "a delta that another program has made larger is merged into, and its longer index left alone")
  func grown() throws {
    let fixture = try DiskFixture()
    let small = Geometry(version: .v2, clusterShift: 12, sizeBytes: 1000 * 4096)
    let large = Geometry(version: .v2, clusterShift: 12, sizeBytes: 3000 * 4096)
    #expect(small.headerClusters == 1 && large.headerClusters == 3)
    var content = [UInt8](repeating: 0, count: 3000 * 4096)
    for (name, geometry, clusters) in [
      ("d0", small, 0..<12), ("d1", small, 8..<11), ("d2", large, 5..<6), ("top", large, 6..<7),
    ] {
      try fixture.make(name, geometry)
      let image = try fixture.attach([name], locks: [])
      for cluster in clusters {
        let bytes = [UInt8](repeating: UInt8(clusters.lowerBound + 1), count: 4096)
        try image.put(bytes, at: UInt64(cluster * 4096))
        content.replaceSubrange(cluster * 4096..<(cluster + 1) * 4096, with: bytes)
      }
      try image.close()
    }
    let device = try fixture.attach(["d0", "d1", "d2", "top"], locks: [])
    let tool = ForeignTool(in: fixture.folder)
    // What lies where the longer index will be is moved first, then the place is zero, then the header.
    let clusters = try tool.index(of: "d1").enumerated()
      .filter { [1, 2].contains($0.element) }.map(\.offset)
    let places = try tool.move(clusters, in: "d1")
    let applied = try device.updateIndex(
      level: 1,
      zip(clusters, places).map { IndexMove(cluster: UInt64($0), physical: UInt64($1)) },
      isWholeChecked: true, until: .after(seconds: 20))
    #expect(applied == 2)
    let file = try fixture.folder.open("d1", writable: true)
    try file.write(AlignedBuffer(count: 2 * 4096).region, at: 4096)
    try file.write(AlignedBuffer(Header(new: large).encoded).region, at: 0)
    #expect(try device.bytes(0, content.count) == content)

    let engine = IOEngine(threadLimit: 2)
    defer { engine.stop(until: .after(seconds: 20)) }
    let merge = try DeltaMerge(of: device, level: 0)
    while try merge.step(limit: 4, on: engine) != nil {}
    let descriptor = DescriptorFile(in: fixture.folder)
    _ = try merge.finish(
      descriptor: descriptor, becoming: Descriptor(new: large, file: "top"),
      until: .after(seconds: 20))
    #expect(try device.bytes(0, content.count) == content)
    try device.flush()
    try expectRebuilt(device)
    try device.close()
    let again = try fixture.attach(["d1", "d2", "top"], locks: [])
    #expect(try again.bytes(0, content.count) == content)
    try again.close()
  }

  @Test("a reader never sees what comes into an old place")
  func readers() throws {
    let bench = try ForeignBench(seed: 14)
    let device = bench.device
    let isOver = Monitor(false)
    let content = bench.content
    let threads = try (0..<3).map { number in
      try Thread(name: "reader") {
        var random = SeededGenerator(seed: UInt64(number))
        while !isOver.withLock({ $0 }) {
          let start = Int.random(in: 0..<content.count - 1, using: &random)
          let count = min(content.count - start, Int.random(in: 1...20_000, using: &random))
          do {
            let bytes = try device.bytes(UInt64(start), count)
            if bytes != Array(content[start..<start + count]) { Issue.record("at \(start)") }
          } catch { Issue.record("\(error)") }
        }
      }
    }
    for round in 0..<12 {
      let level = round % 5
      let clusters = Array(bench.owned(level).prefix(6))
      let old = try bench.tool.index(of: bench.names[level])
      let places = try bench.tool.move(clusters, in: bench.names[level])
      #expect(try bench.update(level, Array(zip(clusters, places))) == clusters.count)
      try bench.tool.overwrite(clusters.map { old[$0] }, in: bench.names[level])
    }
    for level in [3, 2, 1] {
      try bench.merge(level, .backward)
      try bench.notify(level, .backward)
      // Its file is whoever's merged it.
      try bench.tool.overwrite(
        Array(1..<20), in: ["d0", "d1", "d2", "d3"][level])
    }
    isOver.update { $0 = true }
    threads.forEach { $0.join() }
    try bench.check()
    try device.close()
  }

  // MARK: Copied

  @Test("a copy takes the file's place, and what is no copy does not")
  func replaced() throws {
    let bench = try ForeignBench(seed: 15, raw: true)
    let folder = bench.fixture.folder
    for (level, name) in [(0, "d0"), (2, "d2")] {
      let bytes = try folder.bytes(of: name, limit: 4 << 20)
      try folder.replace("copy\(level)", with: bytes)
      var wrong = bytes
      wrong[wrong.count - 3] ^= 1
      try folder.replace("wrong", with: wrong)
      func replace(_ by: String, checked: Bool = true, isRaw: Bool) throws {
        let source = try bench.fixture.source(by, isRaw: isRaw)
        _ = try bench.device.replaceFile(
          level: level, with: source, isContentChecked: checked, until: .after(seconds: 20)
        ) { _ throws(DeviceError) in }
      }
      let isRaw = level == 0
      #expect(try bench.refusal { try replace("wrong", isRaw: isRaw) } == "image-not-identical")
      #expect(try bench.refusal { try replace("d3", isRaw: false) } == "sameFileTwice")
      try folder.replace("short", with: Array(bytes[..<(bytes.count - 4096)]))
      #expect(try bench.refusal { try replace("short", isRaw: isRaw) } != "none")
      let old = try folder.open(name, writable: true)
      #expect(throws: LockError.self) { try ImageLock.acquire(old, for: .write) }
      try replace("copy\(level)", isRaw: isRaw)
      #expect(bench.device.levels()[level].path.hasSuffix("copy\(level)"))
      // The old one is read no more.
      try folder.replace(name, with: Array("gone".utf8))
      #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
      try ImageLock.acquire(old, for: .write)
    }
    try bench.device.flush()
    try expectRebuilt(bench.device)
    let top = try bench.refusal {
      _ = try bench.device.replaceFile(
        level: 5, with: try bench.fixture.source("d3"), isContentChecked: true,
        until: .after(seconds: 20)
      ) { _ throws(DeviceError) in }
    }
    #expect(top == "delta-is-top")
    try bench.device.close()
  }
}
