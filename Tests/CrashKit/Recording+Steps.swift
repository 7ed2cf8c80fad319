internal import Glibc
internal import PloopDevice
internal import PloopIO

extension Recording {
  /// Attaches with safe repair; what is readable afterwards is durable from then on (rule 0).
  package func attach(_ check: IndexChecking = .before) throws {
    try step(.attach) { step in
      let sources = try Recording.sources(setup, in: folder)
      let device = try Recording.attach(sources, repair: true, check)
      let position = self.position
      let values = try compare(device, "after an attach") { history, sector in
        history.allowed(sector: sector, at: position)
      }
      state.withLock { state in
        for (sector, value) in values.enumerated() {
          state.history.record(step: step, sector: sector, value: value)
        }
        state.device = device
        state.files = sources.map(\.file)
      }
    }
  }

  /// Forgets the disk without closing it, as a killed process does.
  package func kill() {
    let files = state.withLock { state in
      defer { (state.device, state.files) = (nil, []) }
      return state.files
    }
    // Not by closing them alone: a program that another test is just starting shares them.
    files.forEach { ImageLock.release($0) }
  }

  package func detach() throws {
    try makeRoom()
    guard let device else { return }
    _ = try compare(device, "before a detach") { $0.readable(sector: $1) }
    try step(.detach) { _ in
      defer { kill() }
      try device.detach(until: .after(seconds: 10))
    }
  }

  package func flush() throws {
    try onDevice(.flush) { device, _ in try device.flush() }
  }

  /// A suspended disk has everything in its files, and gets it before anybody resumes it.
  package func suspend() throws {
    try onDevice(.flush) { device, _ in
      try device.suspend(until: .after(seconds: 10))
      device.resume()
    }
  }

  package func write(_ sectors: Range<Int>, durable: Bool = false) throws {
    try onDevice(.change(durable: durable)) { device, step in
      try device.write(
        fill(sectors, step: step), at: UInt64(sectors.lowerBound * History.sectorBytes),
        durable: durable)
    }
  }

  /// Whole clusters.
  package func discard(clusters: Range<Int>, durable: Bool = false) throws {
    try zero(setup.sectors(of: clusters), durable: durable) { device, offset, length in
      try device.discard(offset: offset, length: length, durable: durable)
    }
  }

  package func writeZeroes(
    _ sectors: Range<Int>, keepAllocated: Bool, durable: Bool = false
  ) throws {
    try zero(sectors, durable: durable) { device, offset, length in
      try device.writeZeroes(
        offset: offset, length: length, keepAllocated: keepAllocated, onlyIfFast: false,
        durable: durable)
    }
  }

  private func zero(
    _ sectors: Range<Int>, durable: Bool, _ body: (Device, UInt64, UInt64) throws -> Void
  ) throws {
    try onDevice(.change(durable: durable)) { device, step in
      state.withLock { state in
        for sector in sectors { state.history.record(step: step, sector: sector, value: 0) }
      }
      try body(
        device, UInt64(sectors.lowerBound * History.sectorBytes),
        UInt64(sectors.count * History.sectorBytes))
    }
  }

  /// Runs steps on several threads at once; no two of them may touch one sector.
  package func concurrently(
    _ count: Int, _ body: @escaping @Sendable (_ thread: Int) throws -> Void
  ) throws {
    state.withLock { $0.isConcurrent = true }
    let threads = try (0..<count).map { index in
      try Thread(name: "crash-storm") {
        do { try body(index) } catch { self.report("thread \(index): \(error)") }
      }
    }
    threads.forEach { $0.join() }
    state.withLock { $0.isConcurrent = false }
    try recover()
  }

  private func onDevice(
    _ kind: History.Kind, _ body: (Device, _ step: Int) throws -> Void
  ) throws {
    guard let device else { return }
    try step(kind) { try body(device, $0) }
  }

  /// The frame of every step: its place in the history, and what happens when it fails.
  private func step(_ kind: History.Kind, _ body: (_ step: Int) throws -> Void) throws {
    let begun = position
    let number = state.withLock { $0.history.begin(kind, at: begun) }
    do {
      try body(number)
      let ended = position
      state.withLock { $0.history.end(step: number, at: ended) }
    } catch {
      guard toleratesFaults else { throw error }
      state.withLock { state in
        state.failures.append((kind, error))
        switch kind {
        case .attach, .detach: state.mustReopen = true
        case .flush, .change: break
        }
      }
    }
    try recover()
  }

  /// A flush round of somebody else while a request of ours is about to write.
  func flushInside() {
    let isFirst = state.withLock { state in
      defer { state.isInsideRound = true }
      return !state.isInsideRound
    }
    guard isFirst else { return }
    do { try flush() } catch { report("a flush inside a request: \(error)") }
    state.withLock { $0.isInsideRound = false }
  }
}
