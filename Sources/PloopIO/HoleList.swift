/// Where a read found nothing allocated: ranges relative to its start, ascending, not touching.
///
/// Kept and reused by its connection, so that reading allocates nothing. What does not fit is not
/// listed: those bytes are zero in the buffer all the same.
package struct HoleList: Sendable {
  package struct Run: Equatable, Sendable {
    package var start: Int
    package var count: Int

    package init(start: Int, count: Int) {
      self.start = start
      self.count = count
    }
  }

  package static let capacity = 64
  package private(set) var runs: [Run] = []

  package init() { runs.reserveCapacity(HoleList.capacity) }

  package mutating func clear() { runs.removeAll(keepingCapacity: true) }

  /// Adds a run behind the last one; a touching one is merged into it.
  package mutating func append(start: Int, count: Int) {
    if let last = runs.last, last.start + last.count == start {
      runs[runs.count - 1].count += count
    } else if runs.count < HoleList.capacity {
      runs.append(Run(start: start, count: count))
    }
  }
}
