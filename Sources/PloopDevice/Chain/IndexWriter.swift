internal import PloopFormat
internal import PloopIO
internal import Synchronization

/// Writes the top's index: the one place where entries reach the disk, in flush rounds.
///
/// A round (docs/crash-safety.md, "Flush round"), one at a time whoever asks for it:
///
///     1  the written flag is cleared and the dirty pages are copied
///     2  fdatasync: the data that the copies name is stable
///     3  the copies are written (page 0 from byte 64 on: header bytes have their own writer)
///     4  fdatasync: the copies are stable
///     5  whoever waited is answered; clusters that the copies had already forgotten go on their way
///
/// A request that has to be durable waits for a round that starts after it asked: if one runs, for
/// the next. So any number of FLUSH and FUA requests share one round.
final class IndexWriter: Sendable {
  private struct State {
    var dirtyPages: Set<Int> = []
    var isRunning = false
    var isRetired = false
    /// Rounds begun and rounds ended, ever.
    var started: UInt64 = 0
    var ended: UInt64 = 0
    var failures: [UInt64: DeviceError] = [:]
  }

  private static let failuresKept = 64

  private let file: ImageFile
  private let map: ClusterMap
  /// The delta's number in the map.
  private let delta: Int
  private let allocator: ClusterAllocator
  private let condition: Condition
  private let state = Monitor(State())
  /// Set once bytes are in the file and before the reply, cleared when a round begins.
  private let written = Atomic<Bool>(false)

  init(
    file: ImageFile, map: ClusterMap, delta: Int, allocator: ClusterAllocator,
    condition: Condition
  ) {
    self.file = file
    self.map = map
    self.delta = delta
    self.allocator = allocator
    self.condition = condition
  }

  /// Bytes of the top are in the file and the reply has not been sent.
  func noteWritten() {
    // A load first: the flag is almost always set already, and a store would take the line away
    // from every other core.
    if !written.load(ordering: .acquiring) {
      written.store(true, ordering: .sequentiallyConsistent)
    }
  }

  /// The map has changed in this page.
  func markDirty(_ page: Int) {
    state.withLock { _ = $0.dirtyPages.insert(page) }
  }

  var isDirty: Bool {
    written.load(ordering: .sequentiallyConsistent)
      || state.withLock { $0.isRunning || !$0.dirtyPages.isEmpty }
  }

  /// Returns once a round that started after this call has succeeded.
  func flush() throws(DeviceError) {
    let target: UInt64? = state.withLock { state in
      let nothing =
        state.isRetired
        || !state.isRunning && state.dirtyPages.isEmpty
          && !written.load(ordering: .sequentiallyConsistent)
      return nothing ? nil : state.started + 1
    }
    guard let target else { return try condition.requireWritable() }
    while true {
      enum Turn { case ended(DeviceError?), lead(UInt64) }
      let turn: Turn? = state.wait { state in
        if state.ended >= target { return .ended(state.failures[target]) }
        if state.isRetired { return .ended(nil) }
        guard !state.isRunning else { return nil }
        state.isRunning = true
        state.started += 1
        return .lead(state.started)
      }
      switch turn {
      case .lead(let number): lead(number)
      case .ended(let failure?): throw failure
      case .ended(nil), nil: return try condition.requireWritable()
      }
    }
  }

  /// No round writes from now on: whoever asks for one had everything flushed before. Returns when
  /// none runs.
  func retire() {
    _ = state.wait { state -> Bool? in
      guard !state.isRunning else { return nil }
      state.isRetired = true
      return true
    }
  }

  private func lead(_ number: UInt64) {
    let failure: DeviceError?
    do {
      try round()
      failure = nil
    } catch {
      failure = error
    }
    state.update { state in
      state.isRunning = false
      state.ended = number
      state.failures[number] = failure
      if state.failures.count > IndexWriter.failuresKept {
        state.failures = state.failures.filter { $0.key + 64 > number }
      }
    }
  }

  private func round() throws(DeviceError) {
    try condition.requireWritable()
    // Before any page is copied: these clusters are no longer named by the map.
    let freed = allocator.roundBegins()
    var succeeded = false
    defer { allocator.roundEnded(freed, succeeded: succeeded) }

    let hadWrites = written.exchange(false, ordering: .sequentiallyConsistent)
    let pages = state.withLock { state -> [Int] in
      defer { state.dirtyPages = [] }
      return state.dirtyPages.sorted()
    }
    guard hadWrites || !pages.isEmpty else {
      succeeded = true
      return
    }
    // 1 copies
    let copies = AlignedBuffer(count: pages.count * Geometry.pageBytes)
    for (index, page) in pages.enumerated() {
      map.encode(
        page: page, delta: delta,
        into: copies.region.slice(index * Geometry.pageBytes, Geometry.pageBytes))
    }
    // 2 data stable
    try sync()
    guard !pages.isEmpty else {
      succeeded = true
      return
    }
    // 3 index written
    do {
      for (index, page) in pages.enumerated() {
        let skipped = page == 0 ? Header.byteCount : 0
        try file.write(
          copies.region.slice(
            index * Geometry.pageBytes + skipped, Geometry.pageBytes - skipped),
          at: UInt64(page * Geometry.pageBytes + skipped))
      }
    } catch {
      // A page that was not written stays dirty, and may be half on the disk: written again whole.
      noteWritten()
      state.withLock { $0.dirtyPages.formUnion(pages) }
      throw DeviceError(error)
    }
    // 4 index stable
    try sync()
    succeeded = true
  }

  /// A failed fdatasync is believed: what was written since the last good one is unknown, and the
  /// kernel has forgotten which pages they were. It is never tried again as if nothing had happened.
  private func sync() throws(DeviceError) {
    do { try file.sync() } catch {
      condition.degrade("\(error); what was written since the last successful flush is unknown")
      throw DeviceError(error)
    }
  }
}
