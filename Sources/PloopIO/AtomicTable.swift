internal import Synchronization

/// A sparse table of 64-bit words that any thread may read while others write: pages of a fixed
/// size that exist only once a word in them differs from the default.
///
/// A store is published with release and read with acquire, so whoever sees a word also sees
/// everything that was done before it was stored.
package final class AtomicTable: @unchecked Sendable {
  private typealias Word = Atomic<UInt64>

  package let count: Int
  package let pageShift: Int
  package let defaultWord: UInt64
  private let pageCount: Int
  private let pages: UnsafeMutablePointer<Atomic<UInt>>

  /// - Parameters:
  ///   - count: words in the table.
  ///   - pageShift: log2 of the words in a page.
  package init(count: Int, pageShift: Int, defaultWord: UInt64) {
    self.count = count
    self.pageShift = pageShift
    self.defaultWord = defaultWord
    pageCount = (count + (1 << pageShift) - 1) >> pageShift
    pages = .allocate(capacity: max(pageCount, 1))
    for page in 0..<pageCount { (pages + page).initialize(to: Atomic(0)) }
  }

  deinit {
    for page in 0..<pageCount {
      if let words = page_(page) { words.deallocate() }
      (pages + page).deinitialize(count: 1)
    }
    pages.deallocate()
  }

  private func page_(_ page: Int) -> UnsafeMutablePointer<Word>? {
    UnsafeMutablePointer(bitPattern: pages[page].load(ordering: .acquiring))
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
    let (exchanged, original) = pages[page].compareExchange(
      expected: 0, desired: UInt(bitPattern: words), ordering: .acquiringAndReleasing)
    guard !exchanged, let other = UnsafeMutablePointer<Word>(bitPattern: original) else {
      return words
    }
    // Another thread was first; its page is the one that everybody sees.
    words.deallocate()
    return other
  }
}
