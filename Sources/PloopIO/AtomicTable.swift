internal import Synchronization

/// A sparse table of 64-bit words that any thread may read while others write: pages of a fixed
/// size that exist only once a word in them differs from the default.
///
/// A store is published with release and read with acquire, so whoever sees a word also sees
/// everything that was done before it was stored.
package final class AtomicTable: @unchecked Sendable {
  private typealias Word = Atomic<UInt64>

  private typealias Page = Atomic<UInt>

  package let pageShift: Int
  package let defaultWord: UInt64
  private let words: Atomic<Int>
  private let pages: Atomic<UnsafeMutablePointer<Atomic<UInt>>>
  /// The rows of pages that a longer one has replaced; whoever reads may still look at one.
  private let outgrown = Locked<[UInt]>([])

  /// - Parameters:
  ///   - count: words in the table.
  ///   - pageShift: log2 of the words in a page.
  package init(count: Int, pageShift: Int, defaultWord: UInt64) {
    self.pageShift = pageShift
    self.defaultWord = defaultWord
    words = Atomic(count)
    let pageCount = AtomicTable.pageCount(of: count, pageShift)
    let row = UnsafeMutablePointer<Page>.allocate(capacity: max(pageCount, 1))
    for page in 0..<pageCount { (row + page).initialize(to: Atomic(0)) }
    pages = Atomic(row)
  }

  deinit {
    for page in 0..<AtomicTable.pageCount(of: count, pageShift) { page_(page)?.deallocate() }
    pages.load(ordering: .acquiring).deallocate()
    for row in outgrown.withLock({ $0 }) {
      UnsafeMutablePointer<Page>(bitPattern: row)?.deallocate()
    }
  }

  private static func pageCount(of count: Int, _ pageShift: Int) -> Int {
    (count + (1 << pageShift) - 1) >> pageShift
  }

  package var count: Int { words.load(ordering: .acquiring) }

  private func page_(_ page: Int) -> UnsafeMutablePointer<Word>? {
    UnsafeMutablePointer(
      bitPattern: pages.load(ordering: .acquiring)[page].load(ordering: .acquiring))
  }

  /// Lengthens the table; the new words have the default. Others may read meanwhile, but nobody may
  /// set a word.
  package func grow(to newCount: Int) {
    let oldCount = count
    guard newCount > oldCount else { return }
    let (old, new) = (
      AtomicTable.pageCount(of: oldCount, pageShift), AtomicTable.pageCount(of: newCount, pageShift)
    )
    let row = UnsafeMutablePointer<Page>.allocate(capacity: max(new, 1))
    let before = pages.load(ordering: .acquiring)
    for page in 0..<new {
      (row + page).initialize(to: Atomic(page < old ? before[page].load(ordering: .acquiring) : 0))
    }
    outgrown.withLock { $0.append(UInt(bitPattern: before)) }
    // The row first: whoever sees the new length finds pages for all of it.
    pages.store(row, ordering: .releasing)
    words.store(newCount, ordering: .releasing)
  }

  package subscript(index: Int) -> UInt64 {
    get {
      precondition(index >= 0 && index < count)
      guard let words = page_(index >> pageShift) else { return defaultWord }
      return words[index & ((1 << pageShift) - 1)].load(ordering: .acquiring)
    }
    set { _ = exchange(index, newValue) }
  }

  /// Sets a word and returns what it was.
  package func exchange(_ index: Int, _ newValue: UInt64) -> UInt64 {
    precondition(index >= 0 && index < count)
    let page = index >> pageShift
    guard let words = page_(page) ?? (newValue == defaultWord ? nil : makePage(page)) else {
      return defaultWord
    }
    return words[index & ((1 << pageShift) - 1)].exchange(
      newValue, ordering: .acquiringAndReleasing)
  }

  /// Whether any word of the page may differ from the default.
  package func hasPage(_ page: Int) -> Bool { page_(page) != nil }

  private func makePage(_ page: Int) -> UnsafeMutablePointer<Word> {
    let words = UnsafeMutablePointer<Word>.allocate(capacity: 1 << pageShift)
    for index in 0..<(1 << pageShift) { (words + index).initialize(to: Atomic(defaultWord)) }
    let (exchanged, original) = pages.load(ordering: .acquiring)[page].compareExchange(
      expected: 0, desired: UInt(bitPattern: words), ordering: .acquiringAndReleasing)
    guard !exchanged, let other = UnsafeMutablePointer<Word>(bitPattern: original) else {
      return words
    }
    // Another thread was first; its page is the one that everybody sees.
    words.deallocate()
    return other
  }
}
