internal import PloopIO
internal import PloopJSON

/// Replies that were made a moment ago, for who asks for the same again: a list of a thousand devices takes tens of
/// milliseconds, and what lies here is given by the thread that received the request.
///
/// A reply is made anew as soon as anything has changed that has a revision, or that events tell of, and once a client
/// of the device that it shows has sent or been sent anything: whoever is told that their write is done sees it in
/// what they ask for next. What else moves (the room that is free, counters of jobs) may be as old as ``life(made:)`` says.
final class ReplyCache: Sendable {
  /// How old a reply may be, in nanoseconds: a fifth of a second, and where it takes long to make so long that at most
  /// a tenth of the time goes into making it, whoever asks how often; never more than a second.
  static func life(made duration: UInt64) -> UInt64 {
    min(1_000_000_000, max(200_000_000, min(duration, 1_000_000_000) * 10))
  }

  private static let mostKept = 1_024
  /// A list of a thousand devices has a megabyte and a half.
  private static let mostBytes = 16 << 20

  /// What a reply depends on, as it was before the reply was made.
  struct Stamp: Equatable, Sendable {
    let changes: UInt64
    let activity: UInt64
  }

  /// A reply with the text of its body, and the route that made it.
  struct Kept: Sendable {
    let reply: HTTPReply
    let route: Route
    let arguments: [String]
    fileprivate let stamp: Stamp
    fileprivate let end: UInt64

    var bytes: Int { reply.sharedBytes?.count ?? 0 }
  }

  private struct State {
    var kept: [String: Kept] = [:]
    var bytes = 0
  }

  private let state = Locked(State())

  /// - Parameters:
  ///   - target: of a request.
  ///   - now: nanoseconds of the monotonic clock.
  ///   - stamp: what it would be made from now.
  /// - Returns: nil where there is none, or none that is new enough.
  func kept(
    for target: String, now: UInt64 = monotonicNanoseconds(), stamp: (Kept) -> Stamp?
  ) -> Kept? {
    guard let kept = state.withLock({ $0.kept[target] }),
      now < kept.end, stamp(kept) == kept.stamp
    else { return nil }
    return kept
  }

  /// - Parameters:
  ///   - reply: to all who may ask for the target, and that has no stream.
  ///   - start: nanoseconds of the monotonic clock, when it was begun to be made.
  ///   - now: when it had been made: however long that took, those who stood in line for it are to have it.
  func keep(
    _ reply: HTTPReply, to target: String, by route: Route, _ arguments: [String], _ stamp: Stamp,
    begun start: UInt64, now: UInt64 = monotonicNanoseconds()
  ) {
    let kept = Kept(
      reply: reply, route: route, arguments: arguments, stamp: stamp,
      end: now &+ ReplyCache.life(made: now &- start))
    guard kept.bytes <= ReplyCache.mostBytes else { return }
    state.withLock { state in
      state.bytes += kept.bytes - (state.kept.updateValue(kept, forKey: target)?.bytes ?? 0)
      guard state.kept.count > ReplyCache.mostKept || state.bytes > ReplyCache.mostBytes else {
        return
      }
      state.kept = [target: kept]
      state.bytes = kept.bytes
    }
  }
}
