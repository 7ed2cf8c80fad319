internal import PloopFormat
package import PloopIO

extension Device {
  /// Fills the region from what the page cache holds, zeroes where no delta maps anything.
  ///
  /// - Returns: false when it would have to wait; the region may hold anything then.
  package func readNow(
    into region: ByteRegion, at offset: UInt64, holes: inout HoleList
  ) -> Bool {
    let start = monotonicNanoseconds()
    guard let pass = gate.enterNow() else { return false }
    defer { gate.leave(pass) }
    guard withChain({ readNow($0, into: region, at: offset, holes: &holes) }) else { return false }
    counters.count(.read, at: offset, bytes: UInt64(region.count), since: start)
    return true
  }

  @inline(__always)
  private func readNow(
    _ chain: DeltaChain, into region: ByteRegion, at offset: UInt64, holes: inout HoleList
  ) -> Bool {
    var pieces = Pieces(chain.geometry, offset: offset, count: region.count)
    while !pieces.isDone {
      guard let piece = pieces.nextNow(in: map) else { return false }
      let part = region.slice(piece.start, piece.count)
      guard let place = piece.place else {
        part.zero()
        holes.append(start: piece.start, count: piece.count)
        continue
      }
      guard chain.files.readNow(place.delta, into: part, at: piece.fileOffset) else {
        return false
      }
    }
    return true
  }

  package func read(
    into region: ByteRegion, at offset: UInt64, holes: inout HoleList
  ) throws(DeviceError) {
    let start = monotonicNanoseconds()
    var waits = RequestWaits()
    let pass = try admitted(&waits)
    defer { gate.leave(pass) }
    let chain = self.chain
    var pieces = Pieces(chain.geometry, offset: offset, count: region.count)
    do {
      while let piece = try pieces.next(in: map) {
        let part = region.slice(piece.start, piece.count)
        guard let place = piece.place else {
          part.zero()
          holes.append(start: piece.start, count: piece.count)
          continue
        }
        let file = try chain.delta(place.delta).file
        try converting { () throws(IOError) in
          try file.readOrZero(into: part, at: piece.fileOffset)
        }
      }
      readAhead(after: offset, UInt64(region.count), chain) { $0.readAhead(offset: $1, length: $2) }
    } catch {
      counters.count(
        .read, at: offset, bytes: UInt64(region.count), since: start, failed: true, waits: waits)
      throw error
    }
    counters.count(
      .read, at: offset, bytes: UInt64(region.count), since: start, waits: waits)
  }

  /// Begins a read whose disk is waited for on the lane.
  ///
  /// It stays inside the gate meanwhile, so it must not wait for a thread of the engine: all of them
  /// may be waiting for the gate.
  ///
  /// - Parameter completion: called once, on the lane's thread or one of the engine's.
  /// - Returns: false, with nothing begun, when the gate is closed, the lane has no room, or the index would
  ///   have to be read from the disk.
  package func beginRead(
    into region: ByteRegion, at offset: UInt64, on lane: ReadLane,
    completion: @escaping @Sendable (Result<HoleList, DeviceError>) -> Void
  ) -> Bool {
    let start = monotonicNanoseconds()
    guard let pass = gate.enterNow() else { return false }
    let chain = self.chain
    var holes = HoleList()
    var pieces = Pieces(chain.geometry, offset: offset, count: region.count)
    var wanted: [(piece: Pieces.Piece, file: ImageFile)] = []
    while !pieces.isDone {
      guard let piece = pieces.nextNow(in: map) else {
        gate.leave(pass)
        return false
      }
      if let place = piece.place {
        guard let delta = try? chain.delta(place.delta) else {
          gate.leave(pass)
          return false
        }
        wanted.append((piece, delta.file))
      } else {
        region.slice(piece.start, piece.count).zero()
        holes.append(start: piece.start, count: piece.count)
      }
    }
    guard lane.hasRoom(for: wanted.count) else {
      gate.leave(pass)
      return false
    }
    let read = ReadInPieces(count: wanted.count) { [self, holes] error in
      gate.leave(pass)
      let result: Result<HoleList, DeviceError> = error.map { .failure($0) } ?? .success(holes)
      counters.count(
        .read, at: offset, bytes: UInt64(region.count), since: start, failed: error != nil)
      completion(result)
    }
    for (piece, file) in wanted {
      let part = region.slice(piece.start, piece.count)
      lane.read(file, into: part, at: piece.fileOffset) { result in read.ended(result, part) }
    }
    // The read may be over by now, and its pass given back; the map is looked at inside only.
    if let pass = gate.enterNow() {
      readAhead(after: offset, UInt64(region.count), self.chain) {
        lane.readAhead($0, offset: $1, length: $2)
      }
      gate.leave(pass)
    }
    return true
  }

  /// Asks for what a reader in order will want next of the top's file, now that a read has missed the
  /// page cache: there the kernel reads nothing ahead.
  private func readAhead(
    after offset: UInt64, _ length: UInt64, _ chain: DeltaChain,
    _ ask: (ImageFile, _ offset: UInt64, _ length: UInt64) -> Void
  ) {
    guard let writing = chain.writing, let range = streams.missed(offset: offset, length: length),
      range.lowerBound < chain.geometry.sizeBytes
    else { return }
    let count = range.upperBound - range.lowerBound
    // A hint: what is not known is not asked for.
    let ahead = runsNow(from: range.lowerBound, length: count, limit: 64, chain) ?? []
    for run in ahead where run.level == chain.topLevel {
      guard let physical = run.physical else { continue }
      let inCluster = run.start & (clusterBytes - 1)
      ask(writing.file, physical << clusterShift + inCluster, run.length)
    }
  }

  /// Asks for the range to be read into the page cache, without waiting for it.
  package func cache(offset: UInt64, length: UInt64) throws(DeviceError) {
    let start = monotonicNanoseconds()
    var waits = RequestWaits()
    let pass = try admitted(&waits)
    defer { gate.leave(pass) }
    let chain = self.chain
    for run in try runs(from: offset, length: length, limit: .max, chain) {
      guard let level = run.level, let physical = run.physical else { continue }
      let inCluster = run.start & (clusterBytes - 1)
      chain.deltas[level].file.readAhead(
        offset: physical << clusterShift + inCluster, length: run.length)
    }
    counters.count(.cache, at: offset, bytes: length, since: start, waits: waits)
  }

  /// A run of bytes with one owner, behind each other in its file.
  package struct Run: Equatable, Sendable {
    package var start: UInt64
    package var length: UInt64
    /// Nil where no delta maps anything.
    package var level: Int?
    /// The cluster in that delta that holds the run's first byte.
    package var physical: UInt64?
  }

  /// Who owns the bytes from `offset` on.
  ///
  /// - Returns: adjoining runs, at most `limit`; so perhaps less than `length` bytes.
  package func runs(
    offset: UInt64, length: UInt64, limit: Int
  ) throws(DeviceError) -> [Run] {
    let pass = try admitted()
    defer { gate.leave(pass) }
    return try runs(from: offset, length: length, limit: limit, chain)
  }

  /// Like ``runs(offset:length:limit:)``: how many deltas down the owner is, the newest counted as 1; 0
  /// where no delta maps anything.
  package func depths(
    offset: UInt64, length: UInt64, limit: Int
  ) throws(DeviceError) -> [(length: UInt64, depth: Int)] {
    let pass = try admitted()
    defer { gate.leave(pass) }
    let chain = self.chain
    return try runs(from: offset, length: length, limit: limit, chain).map { run in
      (run.length, run.level.map { chain.deltas.count - $0 } ?? 0)
    }
  }

  /// Like ``runs(offset:length:limit:)``; nil when the gate is closed or when it would take long.
  package func runsNow(offset: UInt64, length: UInt64, limit: Int) -> [Run]? {
    guard length >> clusterShift <= Device.clustersAtOnce,
      let pass = gate.enterNow()
    else { return nil }
    defer { gate.leave(pass) }
    return runsNow(from: offset, length: length, limit: limit, chain)
  }

  /// Clusters whose owners are looked up within a fraction of a millisecond.
  private static let clustersAtOnce: UInt64 = 16 << 10

  /// Like ``runs(offset:length:limit:)``, but also while the disk is suspended; not during a change
  /// of the chain, which whoever calls this has to exclude.
  package func layout(offset: UInt64, length: UInt64, limit: Int) throws(DeviceError) -> [Run] {
    try runs(from: offset, length: length, limit: limit, chain)
  }

  private func runs(
    from offset: UInt64, length: UInt64, limit: Int, _ chain: DeltaChain
  ) throws(DeviceError) -> [Run] {
    try runs(from: offset, length: length, limit: limit, chain) {
      (cluster, count) throws(DeviceError) in try map.run(from: cluster, limit: count)
    } ?? []
  }

  private func runsNow(
    from offset: UInt64, length: UInt64, limit: Int, _ chain: DeltaChain
  ) -> [Run]? {
    runs(from: offset, length: length, limit: limit, chain) { map.runNow(from: $0, limit: $1) }
  }

  /// - Parameter look: finds a run of clusters; nil when it would have to wait.
  private func runs<Failure>(
    from offset: UInt64, length: UInt64, limit: Int, _ chain: DeltaChain,
    _ look: (_ cluster: UInt64, _ limit: UInt64) throws(Failure) -> PagedMap.Run?
  ) throws(Failure) -> [Run]? {
    var runs: [Run] = []
    var position = offset
    let end = offset + min(length, chain.geometry.sizeBytes - min(offset, chain.geometry.sizeBytes))
    while position < end, runs.count < limit {
      let cluster = position >> clusterShift
      // Not beyond what is asked: a run may be as long as the disk.
      guard let found = try look(cluster, ((end - 1) >> clusterShift) - cluster + 1) else {
        return nil
      }
      let next = min(end, (cluster + found.count) << clusterShift)
      runs.append(
        Run(
          start: position, length: next - position,
          level: found.place.flatMap { chain.level(of: $0.delta) },
          physical: found.place?.physical))
      position = next
    }
    return runs
  }

  /// Keeps `work` while requests are not admitted, and calls it when they are again, or never more.
  ///
  /// - Returns: false, with nothing kept, when they are admitted.
  package func keep(_ work: @escaping @Sendable () -> Void) -> Bool { gate.keep(work) }

  /// The same for requests that change the disk, which wait for the check of its index as well.
  package func keepChange(_ work: @escaping @Sendable () -> Void) -> Bool {
    condition.keep(work) || gate.keep(work)
  }

  /// Enters the gate, waiting while it is closed.
  func admitted() throws(DeviceError) -> Gate.Pass {
    guard let pass = gate.enter() else { throw DeviceError(.detached, "the disk is detached") }
    return pass
  }
}

/// A read of several places that is over when all of them are.
private final class ReadInPieces: Sendable {
  private struct State {
    var left: Int
    var error: DeviceError?
  }

  private let state: Locked<State>
  private let completion: @Sendable (DeviceError?) -> Void

  init(count: Int, completion: @escaping @Sendable (DeviceError?) -> Void) {
    state = Locked(State(left: count))
    self.completion = completion
    if count == 0 { completion(nil) }
  }

  /// What lies beyond the end of a file reads as zeroes.
  func ended(_ result: Result<Int, IOError>, _ part: ByteRegion) {
    if case .success(let count) = result { part.slice(count, part.count - count).zero() }
    let (isLast, error) = state.withLock { state in
      state.left -= 1
      if case .failure(let error) = result { state.error = state.error ?? DeviceError(error) }
      return (state.left == 0, state.error)
    }
    if isLast { completion(error) }
  }
}
