/// One bit for each of a growing row of things; bits beyond the end read as false.
package struct Bitmap: Sendable {
  private var words: [UInt64]
  package private(set) var count: Int

  package init(count: Int) {
    self.count = count
    words = [UInt64](repeating: 0, count: (count + 63) / 64)
  }

  package subscript(index: Int) -> Bool {
    get { index < count && words[index >> 6] & (1 << UInt64(index & 63)) != 0 }
    set {
      precondition(index >= 0 && index < count)
      if newValue {
        words[index >> 6] |= 1 << UInt64(index & 63)
      } else {
        words[index >> 6] &= ~(1 << UInt64(index & 63))
      }
    }
  }

  /// Whether no bit of a range is set; bits beyond the end are not.
  package func isClear(_ range: Range<Int>) -> Bool {
    var place = range.lowerBound
    let end = min(range.upperBound, count)
    while place < end {
      let width = min(64 - place & 63, end - place)
      if words[place >> 6] & Bitmap.mask(place & 63, width) != 0 { return false }
      place += width
    }
    return true
  }

  /// Sets all bits of a range, which has to lie before the end.
  package mutating func set(_ range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= count)
    var place = range.lowerBound
    while place < range.upperBound {
      let width = min(64 - place & 63, range.upperBound - place)
      words[place >> 6] |= Bitmap.mask(place & 63, width)
      place += width
    }
  }

  /// `width` bits, at least one, of which the lowest is `low`.
  private static func mask(_ low: Int, _ width: Int) -> UInt64 {
    (~0 >> UInt64(64 - width)) << UInt64(low)
  }

  /// Grows or cuts; new bits are false.
  package mutating func resize(to newCount: Int) {
    precondition(newCount >= 0)
    if newCount < count {
      words.removeLast(words.count - (newCount + 63) / 64)
      if newCount & 63 != 0 { words[newCount >> 6] &= (1 << UInt64(newCount & 63)) - 1 }
    } else {
      words.append(contentsOf: repeatElement(0, count: (newCount + 63) / 64 - words.count))
    }
    count = newCount
  }

  /// The first index from `start` on whose bit is false, or nil when there is none before the end.
  package func firstClear(from start: Int) -> Int? {
    guard start < count else { return nil }
    var word = start >> 6
    var free = ~words[word] & (~0 << UInt64(start & 63))
    while true {
      if free != 0 {
        let index = word << 6 + free.trailingZeroBitCount
        return index < count ? index : nil
      }
      word += 1
      guard word < words.count else { return nil }
      free = ~words[word]
    }
  }

  /// The first index from `start` on whose bit is true, or nil.
  package func firstSet(from start: Int) -> Int? {
    guard start < count else { return nil }
    var word = start >> 6
    var set = words[word] & (~0 << UInt64(start & 63))
    while set == 0 {
      word += 1
      guard word < words.count else { return nil }
      set = words[word]
    }
    return word << 6 + set.trailingZeroBitCount
  }

  /// Runs of true bits, in order.
  package var runs: [Range<Int>] {
    var runs: [Range<Int>] = []
    var place = 0
    while let start = firstSet(from: place) {
      let end = firstClear(from: start) ?? count
      runs.append(start..<end)
      place = end
    }
    return runs
  }

  /// The bits in memory order: eight in a byte, the first in its lowest bit.
  package var bytes: [UInt8] {
    (0..<(count + 7) / 8).map { UInt8(truncatingIfNeeded: words[$0 >> 3] >> UInt64(8 * ($0 & 7))) }
  }

  /// All true.
  package init(allSet count: Int) {
    self.init(bytes: [UInt8](repeating: 0xFF, count: (count + 7) / 8), count: count)
  }

  /// The bits from memory, in the same order; what `bytes` has beyond `count` bits is left out.
  package init(bytes: [UInt8], count: Int) {
    self.init(count: count)
    for (index, byte) in bytes.prefix((count + 7) / 8).enumerated() {
      words[index >> 3] |= UInt64(byte) << UInt64(8 * (index & 7))
    }
    if count & 63 != 0 { words[count >> 6] &= (1 << UInt64(count & 63)) - 1 }
  }

  /// The last index whose bit is true, or nil.
  package var lastSet: Int? {
    for word in words.indices.reversed() where words[word] != 0 {
      return word << 6 + 63 - words[word].leadingZeroBitCount
    }
    return nil
  }

  package var setCount: Int { words.reduce(0) { $0 + $1.nonzeroBitCount } }

  /// Sets what is set in another row; grows to its length where that is longer.
  package mutating func formUnion(_ other: Bitmap) {
    if other.count > count { resize(to: other.count) }
    for index in other.words.indices { words[index] |= other.words[index] }
  }

  /// How many bits of a range are set.
  package func setCount(in range: Range<Int>) -> Int {
    var count = 0
    var place = range.lowerBound
    while let start = firstSet(from: place), start < range.upperBound {
      place = min(firstClear(from: start) ?? self.count, range.upperBound)
      count += place - start
    }
    return count
  }
}
