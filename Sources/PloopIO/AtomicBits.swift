internal import Synchronization

/// A fixed row of bits that any thread may set and look at while others do. Bits are set one way only;
/// all of them together can be cleared.
///
/// Setting a bit and looking at one are sequentially consistent with each other: of two threads that
/// each set one and then look at the other's, at least one sees it.
package final class AtomicBits: @unchecked Sendable {
  private typealias Word = Atomic<UInt64>

  package let count: Int
  private let wordCount: Int
  private let words: UnsafeMutablePointer<Word>

  package init(count: Int) {
    precondition(count >= 0)
    self.count = count
    wordCount = (count + 63) >> 6
    words = .allocate(capacity: max(wordCount, 1))
    for index in 0..<wordCount { (words + index).initialize(to: Atomic(0)) }
  }

  deinit {
    for index in 0..<wordCount { (words + index).deinitialize(count: 1) }
    words.deallocate()
  }

  package subscript(index: Int) -> Bool {
    precondition(index >= 0 && index < count)
    return words[index >> 6].load(ordering: .sequentiallyConsistent) & (1 << UInt64(index & 63))
      != 0
  }

  package func set(_ range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= count)
    forEachWord(of: range) { word, mask in
      // A load first: the bits are almost always set already, and a store would take the line away
      // from every other core.
      if words[word].load(ordering: .sequentiallyConsistent) & mask != mask {
        words[word].bitwiseOr(mask, ordering: .sequentiallyConsistent)
      }
      return true
    }
  }

  /// Whether all bits of the range are set.
  package func contains(_ range: Range<Int>) -> Bool {
    precondition(range.lowerBound >= 0 && range.upperBound <= count)
    return forEachWord(of: range) { word, mask in
      words[word].load(ordering: .sequentiallyConsistent) & mask == mask
    }
  }

  package func clearAll() {
    for word in 0..<wordCount { words[word].store(0, ordering: .sequentiallyConsistent) }
  }

  /// The first index from `start` on whose bit is not what that of `start` is, or the end.
  package func endOfRun(from start: Int) -> Int {
    let isSet = self[start]
    var index = start
    while index < count {
      let word = words[index >> 6].load(ordering: .sequentiallyConsistent)
      let differing = (isSet ? ~word : word) >> UInt64(index & 63)
      if differing != 0 { return min(count, index + differing.trailingZeroBitCount) }
      index = (index | 63) + 1
    }
    return count
  }

  package var setCount: Int {
    (0..<wordCount).reduce(0) {
      $0 + words[$1].load(ordering: .sequentiallyConsistent).nonzeroBitCount
    }
  }

  /// All bits: bit i is bit i % 8 of byte i / 8.
  package var bytes: [UInt8] {
    [UInt8](unsafeUninitializedCapacity: wordCount * 8) { buffer, initialized in
      for word in 0..<wordCount {
        UnsafeMutableRawBufferPointer(buffer).storeBytes(
          of: words[word].load(ordering: .sequentiallyConsistent).littleEndian,
          toByteOffset: word * 8, as: UInt64.self)
      }
      initialized = (count + 7) / 8
    }
  }

  /// Sets what is set in `bytes`; bits behind the end are left out.
  package func formUnion(_ bytes: [UInt8]) {
    for (index, byte) in bytes.enumerated() where byte != 0 {
      for bit in 0..<8 where byte & (1 << UInt8(bit)) != 0 {
        let position = index * 8 + bit
        if position < count { set(position..<position + 1) }
      }
    }
  }

  /// - Returns: whether `body` answered true for every word that the range touches.
  @discardableResult
  private func forEachWord(of range: Range<Int>, _ body: (Int, UInt64) -> Bool) -> Bool {
    var index = range.lowerBound
    while index < range.upperBound {
      let word = index >> 6
      let end = min(range.upperBound, (word + 1) << 6)
      let length = UInt64(end - index)
      let mask = (length == 64 ? UInt64.max : (UInt64(1) << length) - 1) << UInt64(index & 63)
      guard body(word, mask) else { return false }
      index = end
    }
    return true
  }
}
