import PloopIO
import Synchronization
import Testing

@Suite("Tables of which only some pages are in memory")
struct PagedTableTests {
  private static let words = PagedTable.pageWords

  /// A page whose words say where they belong.
  private func words(_ page: Int, round: Int = 0) -> ByteRegion {
    let region = AlignedBuffer(count: FramePool.frameBytes).region
    for slot in 0..<Self.words {
      region.setLittleEndian(UInt64(page * Self.words + slot), at: slot * 8)
    }
    return region
  }

  private func table(pages: Int, frames: Int) -> (PagedTable, FramePool) {
    let pool = FramePool(budgetBytes: frames * FramePool.frameBytes)
    return (PagedTable(pageCount: pages, defaultWord: .max, pool: pool), pool)
  }

  @discardableResult
  private func fill(_ table: PagedTable, _ page: Int, pinned: Bool = false) -> Bool {
    table.install(
      page: page, table.stamp(page: page), words(page), mapped: Self.words, pinned: pinned)
  }

  @Test("a page is dropped when another one needs the room, the one that was used last stays")
  func evicted() {
    let (table, pool) = table(pages: 9, frames: 2)
    #expect(table.word(at: 5) == nil)
    #expect(fill(table, 0) && fill(table, 1))
    #expect(table.word(at: 5) == 5 && table.word(at: Self.words + 1) == UInt64(Self.words + 1))
    #expect(fill(table, 2))
    #expect((0..<3).count { table.isResident(page: $0) } == 2)
    #expect(table.isResident(page: 2))
    #expect(pool.values.loads == 3 && pool.values.evictions == 1)
    #expect(pool.values.residentBytes == UInt64(2 * FramePool.frameBytes))
  }

  @Test("what is pinned stays, beyond the budget if need be, which is kept again afterwards")
  func pinned() {
    let (table, pool) = table(pages: 9, frames: 1)
    for page in 0..<4 { #expect(fill(table, page, pinned: true)) }
    #expect(!fill(table, 5))
    #expect(pool.values.residentBytes == UInt64(4 * FramePool.frameBytes))
    #expect(pool.values.pinnedBytes == pool.values.residentBytes)
    #expect(table.pin(page: 0) && !table.pin(page: 6))
    table.unpin(page: 0)
    #expect(table.isResident(page: 0))
    for page in 0..<4 { table.unpin(page: page) }
    #expect(pool.values.residentBytes == UInt64(FramePool.frameBytes))
    #expect(pool.values.pinnedBytes == 0)
    #expect(fill(table, 5) && table.word(at: 5 * Self.words) == UInt64(5 * Self.words))
  }

  @Test("of any pins and pages, what is pinned is there, and nothing else beyond the budget")
  func anything() {
    let (table, pool) = table(pages: 40, frames: 6)
    var state: UInt64 = 7
    func random(_ limit: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % limit
    }
    var pins = [Int](repeating: 0, count: 40)
    var wrong = 0
    for _ in 0..<4_000 {
      let page = random(40)
      switch random(4) {
      case 0 where pins.reduce(0, +) < 12:
        if table.pin(page: page) || fill(table, page, pinned: true) { pins[page] += 1 }
      case 1 where pins[page] > 0:
        table.unpin(page: page)
        pins[page] -= 1
      default: fill(table, page)
      }
      let pinned = pins.count { $0 > 0 }
      if pool.values.pinnedBytes != UInt64(pinned * FramePool.frameBytes) { wrong += 1 }
      if pool.values.residentBytes > UInt64(max(6, pinned) * FramePool.frameBytes) { wrong += 1 }
      for page in 0..<40 {
        let word = table.word(at: page * Self.words + 3)
        if pins[page] > 0 && word == nil { wrong += 1 }
        if let word, word != UInt64(page * Self.words + 3) { wrong += 1 }
      }
    }
    #expect(wrong == 0)
    #expect(pool.values.evictions > 100)
  }

  @Test("a pool of no bytes keeps only what is pinned")
  func nothing() {
    let (table, pool) = table(pages: 3, frames: 0)
    #expect(!table.isWorthLoading(page: 1) && !table.isWorthLoading(page: 1))
    #expect(!fill(table, 1))
    #expect(fill(table, 1, pinned: true))
    #expect(table.word(at: Self.words) == UInt64(Self.words))
    table.unpin(page: 1)
    #expect(table.word(at: Self.words) == nil && pool.values.residentBytes == 0)
  }

  @Test("what was read before something happened to a page fills it no more")
  func stale() {
    let (table, _) = table(pages: 3, frames: 1)
    let before = table.stamp(page: 0)
    #expect(table.isCurrent(before, page: 0))
    fill(table, 0, pinned: true)
    #expect(!table.isCurrent(before, page: 0))
    table.set(3, 77)
    table.unpin(page: 0)
    fill(table, 1)
    #expect(!table.isResident(page: 0))
    #expect(!table.isCurrent(before, page: 0))
    #expect(!table.install(page: 0, before, words(0), mapped: 9, pinned: true))
    let later = table.stamp(page: 0)
    let epoch = table.beginEpoch()
    #expect(!table.install(page: 0, later, words(0), mapped: 9, pinned: true))
    #expect(fill(table, 2, pinned: true))
    #expect(table.residentPages() == [1, 2] || table.residentPages() == [2])
    #expect(table.residentPages(since: epoch) == [2])
  }

  @Test(
    "a page is worth its room when its misses have cost as much, with none of others in between")
  func worth() {
    let (table, _) = table(pages: 3_000, frames: 1)
    #expect(table.isWorthLoading(page: 0))
    fill(table, 0)
    for _ in 0..<3 { #expect(!table.isWorthLoading(page: 1)) }
    #expect(table.isWorthLoading(page: 1))
    // There is room to remember more pages than one, but not so many.
    for page in 2..<3_000 { _ = table.isWorthLoading(page: page) }
    #expect(!table.isWorthLoading(page: 1))
  }

  @Test("how many words of a page are set is known, in memory or not")
  func counted() {
    let (table, _) = table(pages: 5000, frames: 1)
    #expect(table.isEmpty(page: 4_999) && table.mappedCount == 0)
    table.addMapped(5, page: 4_000)
    table.addMapped(2, page: 4_000)
    #expect(table.mappedCount == 7 && !table.isEmpty(page: 4_000) && table.isEmpty(page: 3_999))
    fill(table, 4_000, pinned: true)
    #expect(table.mappedCount == UInt64(Self.words))
    table.set(4_000 * Self.words, .max)
    table.set(4_000 * Self.words, .max)
    #expect(table.mappedCount == UInt64(Self.words - 1))
    table.set(4_000 * Self.words, 1)
    table.forgetMapped(page: 4_000)
    #expect(table.mappedCount == UInt64(Self.words))
    table.unpin(page: 4_000)
    fill(table, 1)
    table.forgetMapped(page: 4_000)
    #expect(table.mappedCount == UInt64(Self.words) && !table.isEmpty(page: 4_000))
    #expect(table.uncountedPages() == [4_000])
    table.countMapped(3, page: 4_000, table.stamp(page: 4_000))
    #expect(table.uncountedPages().isEmpty && table.mappedCount == UInt64(Self.words + 3))
    table.grow(toPages: 9_000)
    #expect(table.isEmpty(page: 8_999) && !table.isEmpty(page: 4_000))
    #expect(table.word(at: Self.words + 3) == UInt64(Self.words + 3))
  }

  @Test("a page that is being forgotten and counted again is never taken for an empty one")
  func forgotten() throws {
    let (table, _) = table(pages: 3, frames: 0)
    table.addMapped(5, page: 1)
    let isOver = Atomic(false)
    let empty = Atomic(0)
    let reader = try Thread(name: "reader") {
      while !isOver.load(ordering: .acquiring) {
        if table.isEmpty(page: 1) { empty.wrappingAdd(1, ordering: .relaxed) }
      }
    }
    for _ in 0..<100_000 {
      table.forgetMapped(page: 1)
      table.countMapped(5, page: 1, table.stamp(page: 1))
    }
    isOver.store(true, ordering: .releasing)
    reader.join()
    #expect(empty.load(ordering: .relaxed) == 0)
    #expect(table.mappedCount == 5)
  }

  @Test("a table that has more pinned than its share of half of the budget crowds the others")
  func crowding() {
    let pool = FramePool(budgetBytes: 64 * FramePool.frameBytes)
    let (busy, calm) = (
      PagedTable(pageCount: 99, defaultWord: .max, pool: pool),
      PagedTable(pageCount: 99, defaultWord: .max, pool: pool)
    )
    for page in 0..<30 { fill(busy, page, pinned: true) }
    fill(calm, 0, pinned: true)
    #expect(!busy.isCrowding && !calm.isCrowding)
    for page in 30..<40 { fill(busy, page, pinned: true) }
    #expect(busy.isCrowding && !calm.isCrowding)
    for page in 0..<20 { busy.unpin(page: page) }
    #expect(!busy.isCrowding)
  }

  @Test("many tables with a page each are no crowd, and neither are pages that nobody can write")
  func few() {
    let pool = FramePool(budgetBytes: 64 * FramePool.frameBytes)
    let tables = (0..<40).map { _ in PagedTable(pageCount: 99, defaultWord: .max, pool: pool) }
    for table in tables { fill(table, 0, pinned: true) }
    #expect(!tables.contains { $0.isCrowding })
    for page in 1..<20 { fill(tables[0], page, pinned: true) }
    #expect(tables.map(\.isCrowding) == tables.indices.map { $0 == 0 })
    for table in tables.dropFirst() { table.unpin(page: 0) }
    #expect(!tables[0].isCrowding)
    for page in 1...50 { fill(tables[1], page, pinned: true) }
    #expect(tables[0].isCrowding && tables[1].isCrowding)
    tables[1].setAside()
    #expect(!tables[0].isCrowding && !tables[1].isCrowding)
  }

  @Test("a table that is gone gives its frames back, and is counted all the same")
  func gone() {
    let pool = FramePool(budgetBytes: 8 * FramePool.frameBytes)
    do {
      let table = PagedTable(pageCount: 4, defaultWord: .max, pool: pool)
      for page in 0..<4 { fill(table, page, pinned: page == 0) }
      table.countHit()
      #expect(pool.values.residentBytes > 0)
    }
    #expect(pool.values.residentBytes == 0 && pool.values.pinnedBytes == 0)
    #expect(pool.values.loads == 4 && pool.values.hits == 1 && pool.values.evictions == 0)
  }

  @Test("nobody reads the word of another page, however fast pages come and go")
  func concurrent() throws {
    let pages = 12
    let (table, pool) = table(pages: pages, frames: 3)
    let isOver = Atomic(false)
    let wrong = Atomic(0)
    let found = Atomic(0)
    let readers = try (0..<3).map { number in
      try Thread(name: "reader") {
        var index = number
        while !isOver.load(ordering: .acquiring) {
          index = (index &* 5 &+ 7919) % (pages * Self.words)
          guard let word = table.word(at: index) else { continue }
          found.wrappingAdd(1, ordering: .relaxed)
          if word != UInt64(index) { wrong.wrappingAdd(1, ordering: .relaxed) }
        }
      }
    }
    let fillers = try (0..<2).map { number in
      try Thread(name: "filler") {
        var page = number
        for round in 0..<20_000 {
          page = (page &* 7 &+ 5 + round) % pages
          let isPinned = round % 5 == 0
          if fill(table, page, pinned: isPinned), isPinned { table.unpin(page: page) }
        }
      }
    }
    fillers.forEach { $0.join() }
    isOver.store(true, ordering: .releasing)
    readers.forEach { $0.join() }
    #expect(wrong.load(ordering: .relaxed) == 0)
    #expect(found.load(ordering: .relaxed) > 0 && pool.values.evictions > 1_000)
  }
}
