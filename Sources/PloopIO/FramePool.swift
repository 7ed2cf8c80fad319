internal import Glibc
internal import Synchronization

/// The memory that tables of all disks have for their pages (``PagedTable``): a number of frames, of which each
/// holds one page. A page that nobody needs makes room for another one, as the clock's hand comes by; pages that
/// are pinned stay, if need be beyond the budget.
///
/// Frames are never unmapped before the pool is gone: whoever still looks at one that has been given to another
/// page reads something that he then does not use.
package final class FramePool: @unchecked Sendable {
  package static let frameBytes = PagedTable.pageWords * 8
  private static let framesPerSlab = 128

  /// What there is, and what has happened since the pool was made.
  package struct Values: Equatable, Sendable {
    package var budgetBytes: UInt64 = 0
    package var residentBytes: UInt64 = 0
    /// Of pages that are not in their files yet, or are just being changed.
    package var pinnedBytes: UInt64 = 0
    /// Looked up in memory.
    package var hits: UInt64 = 0
    /// Looked up in the files.
    package var misses: UInt64 = 0
    package var loads: UInt64 = 0
    package var evictions: UInt64 = 0
  }

  struct Frame {
    let memory: UnsafeMutablePointer<PagedTable.Word>
    /// Whose page it holds; nil for a free one.
    var slot: UnsafeMutablePointer<PagedTable.Slot>?
    var owner: ObjectIdentifier?
    /// Where it is among those that may be given to another page; nil while it is pinned, or free.
    var place: Int?
    var page = 0
    /// The owner's epoch when the page was filled.
    var epoch: UInt64 = 0
  }

  struct State {
    var frames: [Frame] = []
    var free: [Int] = []
    var slabs: [AlignedBuffer] = []
    /// Frames with pages without pins: what the clock's hand goes over, however many others are pinned.
    var idle: [Int] = []
    var hand = 0
    var evictions: UInt64 = 0
    /// Frames with pins, by their tables, and of all.
    var pinned: [ObjectIdentifier: Int] = [:]
    var pinnedFrames = 0
    /// Tables whose pins stay for good.
    var aside: Set<ObjectIdentifier> = []
    var counters: [ObjectIdentifier: AtomicCounters] = [:]
    /// What tables have counted that are gone.
    var past = [UInt64](repeating: 0, count: PagedTable.Counter.count)

    var used: Int { frames.count - free.count }

    /// A frame's page may be dropped from now on.
    mutating func addIdle(_ index: Int) {
      frames[index].place = idle.count
      idle.append(index)
    }

    /// It may not any more.
    mutating func removeIdle(_ index: Int) {
      guard let place = frames[index].place else { return }
      frames[index].place = nil
      let last = idle.removeLast()
      guard last != index else { return }
      idle[place] = last
      frames[last].place = place
    }
  }

  package let budgetBytes: Int
  let budgetFrames: Int
  /// So many pinned frames are no crowd, however small the budget is.
  private static let fewFrames = 16
  /// Who has no more than that writes them with the timer, however many others there are: a round for each page would
  /// cost more than the page.
  private static let fewOwnFrames = 8
  let state = Locked(State())
  /// Pages that were missed a short while ago, by their hashes, and how often.
  private let missed: AtomicCounters
  private let missedCount: Int
  let hasRoom: Atomic<Bool>
  private let isCrowded = Atomic<Bool>(false)

  /// - Parameter budgetBytes: 0 keeps no page that is not pinned.
  package init(budgetBytes: Int) {
    self.budgetBytes = max(0, budgetBytes)
    budgetFrames = max(0, budgetBytes) / FramePool.frameBytes
    missedCount = max(64, min(65_536, budgetFrames))
    missed = AtomicCounters(count: missedCount)
    hasRoom = Atomic(budgetFrames > 0)
  }

  // MARK: Who may have a page

  /// To load a page costs about as much as to look this many of its words up in the files.
  private static let missesWorthLoading: UInt64 = 4

  /// Whether a page that was not there is worth a frame: as long as there is room, or when its misses have cost about
  /// as much as it does, with none of another page in their place meanwhile. A page that is looked at once does not
  /// drive out one that is used, nor do pages that are all looked at seldom drive out each other.
  func isWorthLoading(_ page: Int, of owner: ObjectIdentifier) -> Bool {
    if hasRoom.load(ordering: .relaxed) { return true }
    guard budgetFrames > 0 else { return false }
    var hash = UInt64(bitPattern: Int64(page)) &+ UInt64(UInt(bitPattern: owner.hashValue)) &* 31
    hash = (hash ^ hash >> 31) &* 0x9E37_79B9_7F4A_7C15
    let place = Int(hash >> 32) % missedCount
    // The page's hash, and in the lowest bits how often it has been missed.
    let mark = hash & ~(FramePool.missesWorthLoading - 1)
    let before = missed[place]
    let misses = before & ~(FramePool.missesWorthLoading - 1) == mark ? before - mark : 0
    guard misses + 1 < FramePool.missesWorthLoading else { return true }
    _ = missed.exchange(mark | (misses + 1), at: place)
    return false
  }

  /// Whether a disk has so many pages that are not in its file that it is to write them now: more than a few, and its
  /// share or more, and together they take half of the budget. Those that nobody can write any more make no crowd.
  func isCrowded(by owner: ObjectIdentifier) -> Bool {
    guard isCrowded.load(ordering: .relaxed) else { return false }
    return state.withLock { state in
      guard let own = state.pinned[owner], own > FramePool.fewOwnFrames,
        !state.aside.contains(owner)
      else { return false }
      let aside = state.aside.compactMap { state.pinned[$0] }
      guard state.pinnedFrames - aside.reduce(0, +) > crowdFrames else { return false }
      return own * (state.pinned.count - aside.count) >= crowdFrames
    }
  }

  /// What a table has pinned it keeps for good: it is not counted when others are to make room.
  func setAside(_ owner: ObjectIdentifier) { state.withLock { _ = $0.aside.insert(owner) } }

  // MARK: Frames

  /// Takes a frame for a page; the caller fills it.
  ///
  /// - Parameter isNeeded: whether it is taken beyond the budget, if need be.
  func take(_ state: inout State, isNeeded: Bool) -> Int? {
    defer { look(at: state) }
    if state.used >= budgetFrames {
      if let evicted = evictOne(&state) { return evicted }
      guard isNeeded else { return nil }
    }
    if state.free.isEmpty { addSlab(&state) }
    return state.free.popLast()
  }

  private func addSlab(_ state: inout State) {
    let count = max(1, min(FramePool.framesPerSlab, budgetFrames - state.frames.count))
    let slab = AlignedBuffer(unfilled: count * FramePool.frameBytes)
    state.slabs.append(slab)
    for index in (0..<count).reversed() {
      let memory = (slab.region.start + index * FramePool.frameBytes)
        .bindMemory(to: PagedTable.Word.self, capacity: PagedTable.pageWords)
      state.free.append(state.frames.count)
      state.frames.append(Frame(memory: memory))
    }
  }

  /// The clock: a page that has been used since the hand came by last gets another turn.
  private func evictOne(_ state: inout State) -> Int? {
    for _ in 0..<state.idle.count * 2 {
      if state.hand >= state.idle.count { state.hand = 0 }
      let index = state.idle[state.hand]
      guard let slot = state.frames[index].slot,
        slot.pointee.touched.exchange(0, ordering: .relaxed) == 0
      else {
        state.hand += 1
        continue
      }
      vacate(index, &state)
      state.evictions += 1
      return index
    }
    return nil
  }

  /// Nobody finds the page in this frame any more.
  private func vacate(_ index: Int, _ state: inout State) {
    guard let slot = state.frames[index].slot else { return }
    slot.pointee.leaveFrame()
    state.removeIdle(index)
    state.frames[index].slot = nil
    state.frames[index].owner = nil
  }

  /// Whether the kernel can be given one frame's memory, and nothing of its neighbours: its own pages may be larger
  /// than a frame.
  private static let isReturnable = frameBytes % max(1, sysconf(Int32(_SC_PAGESIZE))) == 0

  /// Gives a frame back, and its memory to the system.
  func giveBack(_ index: Int, _ state: inout State, isEviction: Bool) {
    vacate(index, &state)
    if isEviction { state.evictions += 1 }
    state.free.append(index)
    if FramePool.isReturnable {
      madvise(state.frames[index].memory, FramePool.frameBytes, MADV_DONTNEED)
    }
    look(at: state)
  }

  /// More pinned frames than that, of all disks together, are too many.
  private var crowdFrames: Int { max(budgetFrames / 2, FramePool.fewFrames) }

  func isOver(_ state: State) -> Bool { state.used > budgetFrames }

  /// What can be asked without the lock.
  private func look(at state: borrowing State) {
    hasRoom.store(state.used < budgetFrames, ordering: .relaxed)
  }

  func pinsChanged(_ state: borrowing State) {
    isCrowded.store(state.pinnedFrames > crowdFrames, ordering: .relaxed)
  }

  // MARK: Tables

  func add(_ table: PagedTable) {
    state.withLock { $0.counters[ObjectIdentifier(table)] = table.counters }
  }

  /// Frames that are looked at while others wait: to give one back is a call of the kernel.
  private static let framesAtOnce = 64

  func remove(_ table: PagedTable) {
    let owner = ObjectIdentifier(table)
    // Nobody takes frames for it any more.
    var next: Int? = 0
    while let start = next {
      next = state.withLock { state in
        let end = min(start + FramePool.framesAtOnce, state.frames.count)
        for index in start..<end where state.frames[index].owner == owner {
          giveBack(index, &state, isEviction: false)
        }
        return end < state.frames.count ? end : nil
      }
    }
    state.withLock { state in
      state.pinnedFrames -= state.pinned.removeValue(forKey: owner) ?? 0
      state.counters[owner] = nil
      state.aside.remove(owner)
      for counter in 0..<PagedTable.Counter.count {
        state.past[counter] += table.counters[counter]
      }
      pinsChanged(state)
    }
  }

  package var values: Values {
    state.withLock { state in
      func total(_ counter: Int) -> UInt64 {
        state.counters.values.reduce(state.past[counter]) { $0 + $1[counter] }
      }
      let bytes = UInt64(FramePool.frameBytes)
      return Values(
        budgetBytes: UInt64(budgetBytes), residentBytes: UInt64(state.used) * bytes,
        pinnedBytes: UInt64(state.pinnedFrames) * bytes, hits: total(PagedTable.Counter.hits),
        misses: total(PagedTable.Counter.misses), loads: total(PagedTable.Counter.loads),
        evictions: state.evictions)
    }
  }
}
