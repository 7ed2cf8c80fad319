/// Which of a row of things have been marked, taken out in rounds. Any thread may use it.
///
/// A round goes upward from where the last one ended and begins again at the bottom, so that what is
/// marked over and over keeps nothing else from being taken.
package final class MarkSet: Sendable {
  private struct State {
    var bits: Bitmap
    var marked: Int
    /// The last one that was taken; the next round goes on behind it.
    var cursor: Int
  }

  private let state: Locked<State>
  private let whenMarked: @Sendable () -> Void

  /// - Parameters:
  ///   - bits: what is marked from the beginning.
  ///   - whenMarked: called, by whoever marks, when something is marked again after nothing was.
  package init(_ bits: Bitmap, whenMarked: @escaping @Sendable () -> Void = {}) {
    state = Locked(State(bits: bits, marked: bits.setCount, cursor: bits.count - 1))
    self.whenMarked = whenMarked
  }

  /// Marks all of the range; the row grows if it ends before.
  package func mark(_ range: ClosedRange<Int>) {
    let isFirst = state.withLock { state in
      if range.upperBound >= state.bits.count { state.bits.resize(to: range.upperBound + 1) }
      let before = state.marked
      for index in range where !state.bits[index] {
        state.bits[index] = true
        state.marked += 1
      }
      return before == 0 && state.marked > 0
    }
    if isFirst { whenMarked() }
  }

  /// Takes up to `limit` marked ones, upward from where the last call ended, and at most once round.
  ///
  /// - Returns: what was taken, its marks removed, and how many are left.
  package func take(_ limit: Int) -> (taken: [Int], left: Int) {
    state.withLock { state in
      var taken: [Int] = []
      var from = state.cursor + 1
      var hasWrapped = false
      let start = state.cursor
      while taken.count < limit, state.marked > 0 {
        guard let next = state.bits.firstSet(from: from), !hasWrapped || next <= start else {
          guard !hasWrapped else { break }
          hasWrapped = true
          from = 0
          continue
        }
        state.bits[next] = false
        state.marked -= 1
        state.cursor = next
        taken.append(next)
        from = next + 1
      }
      return (taken, state.marked)
    }
  }

  /// Takes all that are marked.
  package func takeAll() -> Bitmap {
    state.withLock { state in
      defer {
        state.bits = Bitmap(count: state.bits.count)
        state.marked = 0
      }
      return state.bits
    }
  }

  package struct Facts: Equatable, Sendable {
    package var count: Int
    package var marked: Int
    /// The one that was taken last.
    package var cursor: Int
  }

  package var facts: Facts {
    state.withLock { Facts(count: $0.bits.count, marked: $0.marked, cursor: $0.cursor) }
  }

  /// What is marked now; nothing is taken.
  package var bits: Bitmap { state.withLock { $0.bits } }
}
