internal import Synchronization

/// A table of 64-bit words of which only some pages are in memory: in frames of a ``FramePool``, from which they
/// are dropped when others need the room. It knows nothing of where pages come from.
///
/// Any thread may look a word up at any time, without a lock: it takes the word from the frame and looks again
/// whether the frame is still the page's. What is *pinned* stays; only words of pinned pages are set, so what is
/// dropped is what can be had again.
///
/// How many words of a page differ from the default is known also of pages that are not in memory, as it was when
/// they were last, or was counted: a page without any need not be looked for.
package final class PagedTable: @unchecked Sendable {
  package static let pageShift = 10
  package static let pageWords = 1 << pageShift
  private static let chunkShift = 10

  typealias Word = Atomic<UInt64>

  enum Counter { static let hits = 0, misses = 1, loads = 2, count = 3 }

  /// What is known of a page.
  struct Slot: ~Copyable {
    /// Of a page that nobody has counted.
    static let unknown = UInt16.max

    /// Where the page is, and a number that is another one whenever that has changed.
    let place = Atomic<UInt64>(0)
    /// The frame's number, of a page that has one; like the pins, under the pool's lock.
    var frame = 0
    var pins: Int32 = 0
    let mapped = Atomic<UInt16>(0)
    /// Whether it was used since the clock's hand came by.
    let touched = Atomic<UInt8>(0)

    /// The address is a whole number of 4 KiB and less than 2^48: the other 28 bits are the number's.
    static func frame(of place: UInt64) -> UnsafeMutablePointer<Word>? {
      UnsafeMutablePointer(bitPattern: UInt(place & 0x0000_FFFF_FFFF_F000))
    }

    private static func next(_ place: UInt64, _ frame: UInt64) -> UInt64 {
      let version = ((place >> 48) << 12 | place & 0xFFF) &+ 1
      return ((version >> 12) & 0xFFFF) << 48 | version & 0xFFF | frame
    }

    func enterFrame(_ memory: UnsafeMutablePointer<Word>) {
      let old = place.load(ordering: .relaxed)
      place.store(Slot.next(old, UInt64(UInt(bitPattern: memory))), ordering: .releasing)
    }

    func leaveFrame() {
      place.store(Slot.next(place.load(ordering: .relaxed), 0), ordering: .releasing)
    }
  }

  /// When something was read that is to fill a page: it fills it only if nothing has happened since.
  package struct Stamp: Equatable, Sendable {
    fileprivate let place: UInt64
    fileprivate let epoch: UInt64
  }

  package let defaultWord: UInt64
  let pool: FramePool
  let counters = AtomicCounters(count: Counter.count)
  private let pages: Atomic<Int>
  /// Rows of addresses of chunks of slots; a chunk is made when something is known of one of its pages.
  private let row: Atomic<UnsafeMutablePointer<Atomic<UInt>>>
  /// Longer rows have replaced these; whoever reads may still look at one.
  private let outgrown = Locked<[UInt]>([])
  private let epoch = Atomic<UInt64>(0)
  let mapped = Atomic<UInt64>(0)

  package init(pageCount: Int, defaultWord: UInt64, pool: FramePool) {
    self.defaultWord = defaultWord
    self.pool = pool
    pages = Atomic(pageCount)
    row = Atomic(PagedTable.makeRow(PagedTable.chunks(of: pageCount)) { _ in 0 })
    pool.add(self)
  }

  deinit {
    pool.remove(self)
    let row = self.row.load(ordering: .acquiring)
    for chunk in 0..<PagedTable.chunks(of: pageCount) {
      UnsafeMutablePointer<Slot>(bitPattern: row[chunk].load(ordering: .acquiring))?.deallocate()
    }
    row.deallocate()
    for row in outgrown.withLock({ $0 }) {
      UnsafeMutablePointer<Atomic<UInt>>(bitPattern: row)?.deallocate()
    }
  }

  private static func chunks(of pages: Int) -> Int {
    (pages + (1 << chunkShift) - 1) >> chunkShift
  }

  private static func makeRow(
    _ count: Int, _ address: (Int) -> UInt
  ) -> UnsafeMutablePointer<Atomic<UInt>> {
    let row = UnsafeMutablePointer<Atomic<UInt>>.allocate(capacity: max(count, 1))
    for chunk in 0..<count { (row + chunk).initialize(to: Atomic(address(chunk))) }
    return row
  }

  package var pageCount: Int { pages.load(ordering: .acquiring) }

  /// Words that differ from the default, as far as pages have been counted.
  package var mappedCount: UInt64 { mapped.load(ordering: .relaxed) }

  /// Lengthens the table; the new words have the default. Others may read meanwhile.
  package func grow(toPages count: Int) {
    pool.state.withLock { _ in
      let (old, new) = (PagedTable.chunks(of: pageCount), PagedTable.chunks(of: count))
      guard count > pageCount else { return }
      if new > old {
        let before = row.load(ordering: .acquiring)
        row.store(
          PagedTable.makeRow(new) { $0 < old ? before[$0].load(ordering: .acquiring) : 0 },
          ordering: .releasing)
        outgrown.withLock { $0.append(UInt(bitPattern: before)) }
      }
      pages.store(count, ordering: .releasing)
    }
  }

  // MARK: Slots

  @inline(__always)
  func slot(_ page: Int) -> UnsafeMutablePointer<Slot>? {
    precondition(page >= 0 && page < pageCount)
    let chunk = row.load(ordering: .acquiring)[page >> PagedTable.chunkShift]
      .load(ordering: .acquiring)
    guard let slots = UnsafeMutablePointer<Slot>(bitPattern: chunk) else { return nil }
    return slots + (page & ((1 << PagedTable.chunkShift) - 1))
  }

  /// The same under the pool's lock, made if it is not there.
  func madeSlot(_ page: Int) -> UnsafeMutablePointer<Slot> {
    if let slot = slot(page) { return slot }
    let slots = UnsafeMutablePointer<Slot>.allocate(capacity: 1 << PagedTable.chunkShift)
    for index in 0..<(1 << PagedTable.chunkShift) { (slots + index).initialize(to: Slot()) }
    row.load(ordering: .acquiring)[page >> PagedTable.chunkShift].store(
      UInt(bitPattern: slots), ordering: .releasing)
    return slots + (page & ((1 << PagedTable.chunkShift) - 1))
  }

  // MARK: Looking up

  /// - Returns: nil when the word's page is not in memory.
  package func word(at index: Int) -> UInt64? {
    guard let slot = slot(index >> PagedTable.pageShift) else { return nil }
    while true {
      let place = slot.pointee.place.load(ordering: .acquiring)
      guard let frame = Slot.frame(of: place) else { return nil }
      let word = frame[index & (PagedTable.pageWords - 1)].load(ordering: .acquiring)
      // The frame may have been another page's by then.
      guard slot.pointee.place.load(ordering: .relaxed) == place else { continue }
      if slot.pointee.touched.load(ordering: .relaxed) == 0 {
        slot.pointee.touched.store(1, ordering: .relaxed)
      }
      return word
    }
  }

  /// Whether every word of a page has the default, in memory or not.
  package func isEmpty(page: Int) -> Bool {
    guard let slot = slot(page) else { return true }
    return slot.pointee.mapped.load(ordering: .acquiring) == 0
  }

  package func isResident(page: Int) -> Bool {
    slot(page).map { Slot.frame(of: $0.pointee.place.load(ordering: .acquiring)) != nil } ?? false
  }

  /// Copies a page that is in memory.
  ///
  /// - Returns: false when it is not.
  package func copy(page: Int, into words: ByteRegion) -> Bool {
    precondition(words.count == FramePool.frameBytes)
    return pool.state.withLock { _ in
      guard let slot = slot(page),
        let frame = Slot.frame(of: slot.pointee.place.load(ordering: .acquiring))
      else { return false }
      let target = words.start.assumingMemoryBound(to: UInt64.self)
      for index in 0..<PagedTable.pageWords {
        target[index] = frame[index].load(ordering: .acquiring)
      }
      return true
    }
  }

  package func countHit() { counters.add(1, at: Counter.hits) }
  package func countMiss() { counters.add(1, at: Counter.misses) }

  // MARK: Loading

  /// Whether another page would drive none out.
  package var hasRoom: Bool { pool.hasRoom.load(ordering: .relaxed) }

  package func isWorthLoading(page: Int) -> Bool {
    pool.isWorthLoading(page, of: ObjectIdentifier(self))
  }

  /// To be taken before what fills a page is read.
  package func stamp(page: Int) -> Stamp {
    let epoch = self.epoch.load(ordering: .acquiring)
    return Stamp(
      place: slot(page)?.pointee.place.load(ordering: .acquiring) ?? 0, epoch: epoch)
  }

  /// Whether the page was not in memory at any time since, and what was read is still what it would be.
  package func isCurrent(_ stamp: Stamp, page: Int) -> Bool {
    atomicMemoryFence(ordering: .acquiring)
    return Slot.frame(of: stamp.place) == nil && self.stamp(page: page) == stamp
  }

  /// What pages are filled with is another thing from now on: whatever was read before fills none.
  package func beginEpoch() -> UInt64 {
    pool.state.withLock { _ in
      epoch.wrappingAdd(1, ordering: .acquiringAndReleasing).newValue
    }
  }

  /// Fills a page with words that were read.
  ///
  /// - Parameters:
  ///   - stamp: from before they were read.
  ///   - mapped: how many of them differ from the default.
  ///   - pinned: whether it is pinned, and so has to be there, whatever the budget is.
  /// - Returns: false, with nothing done, if something has happened since or there is no room.
  package func install(
    page: Int, _ stamp: Stamp, _ words: ByteRegion, mapped count: Int, pinned: Bool
  ) -> Bool {
    precondition(words.count == FramePool.frameBytes)
    return pool.state.withLock { state in
      guard isCurrent(stamp, page: page), let index = pool.take(&state, isNeeded: pinned) else {
        return false
      }
      let slot = madeSlot(page)
      let frame = state.frames[index].memory
      // Whoever sees one of the words sees as well that the frame is not the former page's.
      atomicMemoryFence(ordering: .releasing)
      let source = words.start.assumingMemoryBound(to: UInt64.self)
      for word in 0..<PagedTable.pageWords {
        (frame + word).pointee.store(source[word], ordering: .relaxed)
      }
      state.frames[index].slot = slot
      state.frames[index].owner = ObjectIdentifier(self)
      state.frames[index].page = page
      state.frames[index].epoch = epoch.load(ordering: .relaxed)
      slot.pointee.frame = index
      slot.pointee.touched.store(1, ordering: .relaxed)
      note(count, in: slot)
      slot.pointee.enterFrame(frame)
      counters.add(1, at: Counter.loads)
      state.addIdle(index)
      if pinned { pin(slot, &state) }
      return true
    }
  }

  // MARK: Pinning

  /// - Returns: false when it is not in memory.
  package func pin(page: Int) -> Bool {
    pool.state.withLock { state in
      guard let slot = slot(page),
        Slot.frame(of: slot.pointee.place.load(ordering: .relaxed)) != nil
      else { return false }
      pin(slot, &state)
      return true
    }
  }

  private func pin(_ slot: UnsafeMutablePointer<Slot>, _ state: inout FramePool.State) {
    slot.pointee.pins += 1
    guard slot.pointee.pins == 1 else { return }
    state.removeIdle(slot.pointee.frame)
    state.pinned[ObjectIdentifier(self), default: 0] += 1
    state.pinnedFrames += 1
    pool.pinsChanged(state)
  }

  package func unpin(page: Int) {
    pool.state.withLock { state in
      guard let slot = slot(page), slot.pointee.pins > 0 else { return }
      slot.pointee.pins -= 1
      guard slot.pointee.pins == 0 else { return }
      let left = (state.pinned[ObjectIdentifier(self)] ?? 1) - 1
      state.pinned[ObjectIdentifier(self)] = left == 0 ? nil : left
      state.pinnedFrames -= 1
      state.addIdle(slot.pointee.frame)
      pool.pinsChanged(state)
      if pool.isOver(state) { pool.giveBack(slot.pointee.frame, &state, isEviction: true) }
    }
  }

  /// Whether it is to have fewer pages pinned.
  package var isCrowding: Bool { pool.isCrowded(by: ObjectIdentifier(self)) }

  /// Nobody writes what is pinned any more, so nobody is asked to make room for it.
  package func setAside() { pool.setAside(ObjectIdentifier(self)) }

  // MARK: Setting

  /// Sets a word of a page that is pinned, and returns what it was.
  @discardableResult
  package func set(_ index: Int, _ newWord: UInt64) -> UInt64 {
    let slot = slot(index >> PagedTable.pageShift)
    guard let slot, let frame = Slot.frame(of: slot.pointee.place.load(ordering: .acquiring)) else {
      preconditionFailure("the page of the word \(index) is not pinned")
    }
    let old = frame[index & (PagedTable.pageWords - 1)].exchange(
      newWord, ordering: .acquiringAndReleasing)
    switch (old == defaultWord, newWord == defaultWord) {
    case (true, false):
      slot.pointee.mapped.wrappingAdd(1, ordering: .relaxed)
      mapped.wrappingAdd(1, ordering: .relaxed)
    case (false, true):
      slot.pointee.mapped.wrappingSubtract(1, ordering: .relaxed)
      mapped.wrappingSubtract(1, ordering: .relaxed)
    default: break
    }
    return old
  }

  /// Pages that are in memory and were filled in this epoch or a later one.
  package func residentPages(since epoch: UInt64 = 0) -> [Int] {
    let owner = ObjectIdentifier(self)
    return pool.state.withLock { state in
      state.frames.filter { $0.owner == owner && $0.epoch >= epoch }.map(\.page)
    }
  }
}
