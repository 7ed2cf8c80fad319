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
  private let map: any EntryTable
  /// The delta's number in the map.
  private let delta: Int
  private let allocator: ClusterAllocator
  private let condition: Condition
  /// The last round of the delta that was the top before. No page is written before it has ended: so
  /// what lies above is never durable without what lies below, and nobody is told that it is.
  private let below: SideWork<Void, DeviceError>?
  private let state = Monitor(State())
  /// Set once bytes are in the file and before the reply, cleared when a round begins.
  private let written = Atomic<Bool>(false)

  init(
    file: ImageFile, map: any EntryTable, delta: Int, allocator: ClusterAllocator,
    condition: Condition, below: SideWork<Void, DeviceError>?
  ) {
    self.file = file
    self.map = map
    self.delta = delta
    self.allocator = allocator
    self.condition = condition
    self.below = below
  }

  /// Bytes of the top are in the file and the reply has not been sent.
  func noteWritten() {
    // A load first: the flag is almost always set already, and a store would take the line away
    // from every other core.
    if !written.load(ordering: .acquiring) {
      written.store(true, ordering: .sequentiallyConsistent)
    }
  }

  /// The map has changed in this page, which the caller has pinned. It stays so until a round has written it.
  func markDirty(_ page: Int) {
    map.retain(page)
    if !state.withLock({ $0.dirtyPages.insert(page).inserted }) { map.unpin(page) }
  }

  var isDirty: Bool {
    written.load(ordering: .sequentiallyConsistent)
      || state.withLock { $0.isRunning || !$0.dirtyPages.isEmpty }
  }

  /// Returns once a round that started after this call has succeeded, and what the delta below had
  /// taken before it.
  func flush() throws(DeviceError) {
    try awaitBelow()
    // Nothing is written any more, however much there is.
    try condition.requireSound()
    let target: UInt64? = state.withLock { state in
      let nothing =
        state.isRetired
        || !state.isRunning && state.dirtyPages.isEmpty
          && !written.load(ordering: .sequentiallyConsistent)
      return nothing ? nil : state.started + 1
    }
    guard let target else { return try condition.requireSound() }
    while true {
      enum Turn {
        case ended(DeviceError?)
        case lead(UInt64)
      }
      let turn: Turn? = state.wait { state in
        if state.ended >= target { return .ended(state.failures[target]) }
        if state.isRetired { return .ended(nil) }
        guard !state.isRunning else { return nil }
        return .lead(IndexWriter.begin(&state))
      }
      switch turn {
      case .lead(let number): lead(number)
      case .ended(let failure?): throw failure
      case .ended(nil), nil: return try condition.requireWritable()
      }
    }
  }

  /// Returns once the index of the delta below is in its file, durably.
  func awaitBelow() throws(DeviceError) { try below?.result() }

  /// Begins the last round of a delta that is the top no longer, and takes everything that it writes:
  /// from then on the map may name other places. Nobody is inside the gate, and whoever asks for a
  /// round waits for this one.
  ///
  /// Returns when no other round runs. ``end(_:)`` is to follow.
  func beginLast() -> Round {
    while true {
      let number: UInt64? = state.wait { state in state.isRunning ? nil : IndexWriter.begin(&state)
      }
      if let number { return begin(number) }
    }
  }

  /// Makes the last round durable; none follows, whether it succeeds or not. If it fails the disk
  /// is degraded: nothing remembers any more what it was to write.
  ///
  /// - Parameter deadline: how long it waits for room, which it may need where the file system copies
  ///   what is overwritten.
  func end(_ last: Round, until deadline: Deadline) throws(DeviceError) {
    var failure = write(last)
    while case .outOfSpace = failure?.kind, !deadline.hasPassed {
      let _: Void? = state.wait(until: .after(milliseconds: 50)) { _ in nil }
      failure = write(last)
    }
    if let failure { condition.degrade("\(failure); a snapshot could not be made durable") }
    end(last, failure, isLast: true)
    if let failure { throw failure }
  }

  /// No round writes from now on: whoever asks for one had everything flushed before. Returns when
  /// none runs.
  func retire() {
    let pages: Set<Int>? = state.wait { state in
      guard !state.isRunning else { return nil }
      state.isRetired = true
      defer { state.dirtyPages = [] }
      return state.dirtyPages
    }
    forget(pages ?? [])
  }

  // MARK: Rounds

  /// What a round makes durable.
  struct Round: Sendable {
    fileprivate let number: UInt64
    fileprivate let freed: [ClusterAllocator.Freed]
    fileprivate let hadWrites: Bool
    fileprivate let pages: [Int]
    fileprivate let copies: ByteRegion
  }

  private static func begin(_ state: inout State) -> UInt64 {
    state.isRunning = true
    state.started += 1
    return state.started
  }

  private func lead(_ number: UInt64) {
    let round = begin(number)
    end(round, write(round))
  }

  /// Takes along what there is now.
  private func begin(_ number: UInt64) -> Round {
    // Before any page is copied: these clusters are no longer named by the map.
    let freed = allocator.roundBegins()
    let hadWrites = written.exchange(false, ordering: .sequentiallyConsistent)
    let pages = state.withLock { state -> [Int] in
      // Their pins are the round's from now on.
      defer { state.dirtyPages = [] }
      return state.dirtyPages.sorted()
    }
    let copies = AlignedBuffer(count: pages.count * Geometry.pageBytes)
    for (index, page) in pages.enumerated() {
      map.encode(
        page: page, delta: delta,
        into: copies.region.slice(index * Geometry.pageBytes, Geometry.pageBytes))
    }
    return Round(
      number: number, freed: freed, hadWrites: hadWrites, pages: pages, copies: copies.region)
  }

  private func end(_ round: Round, _ failure: DeviceError?, isLast: Bool = false) {
    allocator.roundEnded(round.freed, succeeded: failure == nil)
    for page in round.pages { map.unpin(page) }
    var left: Set<Int> = []
    state.update { state in
      state.isRunning = false
      if isLast {
        // One step with the end: a round in between would write what the map says of the new top.
        state.isRetired = true
        (left, state.dirtyPages) = (state.dirtyPages, [])
      }
      state.ended = round.number
      state.failures[round.number] = failure
      if state.failures.count > IndexWriter.failuresKept {
        state.failures = state.failures.filter { $0.key + 64 > round.number }
      }
    }
    // Of a round that has failed before it was made once more.
    forget(left)
  }

  /// - Returns: why it failed.
  private func write(_ round: Round) -> DeviceError? {
    do throws(DeviceError) { try makeDurable(round) } catch {
      // Whatever was not written stays dirty. A page may be half on the disk: it is written again whole.
      noteWritten()
      for page in round.pages { markDirty(page) }
      return error
    }
    return nil
  }

  private func makeDurable(_ round: Round) throws(DeviceError) {
    try condition.requireWritable()
    guard round.hadWrites || !round.pages.isEmpty else { return }
    // Data stable.
    try sync()
    guard !round.pages.isEmpty else { return }
    // Index written.
    for (index, page) in round.pages.enumerated() {
      let skipped = page == 0 ? Header.byteCount : 0
      try converting { () throws(IOError) in
        try file.write(
          round.copies.slice(
            index * Geometry.pageBytes + skipped, Geometry.pageBytes - skipped),
          at: UInt64(page * Geometry.pageBytes + skipped))
      }
    }
    // Index stable.
    try sync()
  }

  /// Pages that nobody will write. What a failed sync leaves unknown stays in memory, as long as the disk is attached:
  /// nobody knows what the file would say.
  private func forget(_ pages: some Sequence<Int>) {
    guard condition.isWritable else { return }
    for page in pages { map.unpin(page) }
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
