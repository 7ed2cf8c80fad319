internal import PloopControl
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
  struct Stamp: Sendable {
    let changes: UInt64
    /// Nil where it does not depend on what clients do.
    let activity: DeviceActivity?
    private let before: UInt64?

    init(changes: UInt64, activity: DeviceActivity?) {
      self.changes = changes
      self.activity = activity
      before = activity?.current
    }

    func isCurrent(_ changes: UInt64) -> Bool {
      self.changes == changes && activity?.current == before
    }
  }

  /// A reply with the text of its body, and the route that made it.
  final class Kept: Sendable {
    let reply: HTTPReply
    let route: Route
    let arguments: [String]
    /// Where it is counted when it is given.
    let tally: Traffic.Tally
    private let stamp: Stamp
    private let end: UInt64

    init(
      _ reply: HTTPReply, _ route: Route, _ arguments: [String], _ tally: Traffic.Tally,
      _ stamp: Stamp, end: UInt64
    ) {
      self.reply = reply
      self.route = route
      self.arguments = arguments
      self.tally = tally
      self.stamp = stamp
      self.end = end
    }

    var bytes: Int { reply.sharedBytes?.count ?? 0 }

    func isFresh(at now: UInt64, _ changes: UInt64) -> Bool {
      now < end && stamp.isCurrent(changes)
    }
  }

  private struct State {
    var kept: [String: Kept] = [:]
    var bytes = 0
  }

  private let state = Locked(State())

  /// - Parameters:
  ///   - target: of a request.
  ///   - changes: how often anything has changed.
  ///   - now: nanoseconds of the monotonic clock.
  /// - Returns: nil where there is none, or none that is new enough.
  func kept(
    for target: String, changes: UInt64, now: UInt64 = monotonicNanoseconds()
  ) -> Kept? {
    guard let kept = state.withLock({ $0.kept[target] }), kept.isFresh(at: now, changes) else {
      return nil
    }
    return kept
  }

  /// - Parameters:
  ///   - reply: to all who may ask for the target, and that has no stream.
  ///   - start: nanoseconds of the monotonic clock, when it was begun to be made.
  ///   - now: when it had been made: however long that took, those who stood in line for it are to have it.
  func keep(
    _ reply: HTTPReply, to target: String, by route: Route, _ arguments: [String],
    _ tally: Traffic.Tally, _ stamp: Stamp, begun start: UInt64,
    now: UInt64 = monotonicNanoseconds()
  ) {
    let kept = Kept(
      reply, route, arguments, tally, stamp, end: now &+ ReplyCache.life(made: now &- start))
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
