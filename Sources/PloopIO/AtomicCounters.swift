internal import Synchronization

/// A row of counters that any thread may raise.
package final class AtomicCounters: @unchecked Sendable {
  private let counters: UnsafeMutablePointer<Atomic<UInt64>>
  private let count: Int

  /// Zeroes.
  package init(count: Int) {
    precondition(count >= 0)
    self.count = count
    counters = .allocate(capacity: count)
    for index in 0..<count { (counters + index).initialize(to: Atomic(0)) }
  }

  deinit {
    counters.deinitialize(count: count)
    counters.deallocate()
  }

  package func add(_ more: UInt64, at index: Int) {
    precondition(index >= 0 && index < count)
    counters[index].wrappingAdd(more, ordering: .relaxed)
  }

  /// Puts another number in the place of one, and returns that.
  func exchange(_ number: UInt64, at index: Int) -> UInt64 {
    precondition(index >= 0 && index < count)
    return counters[index].exchange(number, ordering: .relaxed)
  }

  package subscript(index: Int) -> UInt64 {
    precondition(index >= 0 && index < count)
    return counters[index].load(ordering: .relaxed)
  }
}
