internal import PloopIO

/// How many pieces of files sockets hold, by the gate's generation in which they were lent.
///
/// Reading a lent page is up to a client, and so takes as long as it likes: nobody waits for that but
/// who wants to use the page's cluster for something else (docs/locking.md, "Lent pages").
final class PageLoans: Sendable {
  private struct Loans {
    var generation: UInt64
    var count: UInt64
  }

  /// Oldest first; only the last may be none. It stays and is used again, so that the usual loan, which is
  /// the only one, changes numbers in place.
  private let outstanding: Monitor<[Loans]>
  /// The same, used without counting references to it.
  private let borrowed: Borrowed<Monitor<[Loans]>>

  init() {
    outstanding = Monitor([])
    borrowed = Borrowed(outstanding)
  }

  /// The borrower is inside the gate.
  func begin(_ generation: UInt64) {
    borrowed.use { $0.withLock { PageLoans.begin(generation, &$0) } }
  }

  private static func begin(_ generation: UInt64, _ loans: inout [Loans]) {
    // Others may have looked at the generation later and come here sooner.
    var index = loans.count
    while index > 0, loans[index - 1].generation >= generation { index -= 1 }
    if index < loans.count, loans[index].generation == generation {
      loans[index].count += 1
    } else if index > 0, index == loans.count, loans[index - 1].count == 0 {
      loans[index - 1] = Loans(generation: generation, count: 1)
    } else {
      loans.insert(Loans(generation: generation, count: 1), at: index)
    }
  }

  func end(_ generation: UInt64, count: UInt64 = 1) {
    borrowed.use { $0.update { PageLoans.end(generation, count, &$0) } }
  }

  private static func end(_ generation: UInt64, _ count: UInt64, _ loans: inout [Loans]) {
    for index in loans.indices where loans[index].generation == generation {
      loans[index].count -= min(count, loans[index].count)
      if loans[index].count == 0, index < loans.count - 1 { loans.remove(at: index) }
      return
    }
  }

  /// In which generation the oldest was lent; nil when there is none.
  var oldest: UInt64? { outstanding.withLock(PageLoans.oldest) }

  private static func oldest(_ loans: inout [Loans]) -> UInt64? {
    guard let first = loans.first, first.count > 0 else { return nil }
    return first.generation
  }

  /// Waits until everything has been given back that was lent before a generation.
  ///
  /// - Returns: false when the deadline came first.
  func awaitReturn(before generation: UInt64, until deadline: Deadline) -> Bool {
    outstanding.wait(until: deadline) { loans in
      PageLoans.oldest(&loans) ?? generation >= generation ? true : nil
    } ?? false
  }
}
