internal import PloopIO
internal import PloopJSON

/// Lists that were made a moment ago, for who asks for the same again: with a thousand devices one takes tens of
/// milliseconds, and everybody else waits meanwhile.
///
/// A list is made anew as soon as anything has changed that has a revision, or that events tell of. Counters move
/// without that, and may be as old as ``milliseconds``.
final class ListCache: Sendable {
  static let milliseconds: UInt64 = 200
  /// Of any size: one of a thousand devices has a megabyte and a half.
  private static let mostKept = 8

  private struct Entry {
    let reply: HTTPReply
    let changes: UInt64
    let madeAt: UInt64
  }

  private let entries = Locked<[String: Entry]>([:])

  /// - Parameters:
  ///   - target: of the request: what it asks for, and from where on.
  ///   - changes: how often anything had changed before the list is made.
  ///   - now: nanoseconds of the monotonic clock.
  func reply(
    to target: String, changes: UInt64, now: UInt64 = monotonicNanoseconds(),
    _ make: () async throws(Problem) -> HTTPReply
  ) async throws(Problem) -> HTTPReply {
    if let entry = entries.withLock({ $0[target] }), entry.changes == changes,
      now &- entry.madeAt < ListCache.milliseconds * 1_000_000
    {
      return entry.reply
    }
    let reply = try await make().encoded
    let entry = Entry(reply: reply, changes: changes, madeAt: now)
    entries.withLock { entries in
      if entries.count >= ListCache.mostKept { entries = [:] }
      entries[target] = entry
    }
    return reply
  }
}
