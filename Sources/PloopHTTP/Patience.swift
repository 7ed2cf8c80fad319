internal import PloopControl
internal import PloopIO

// Every request that waits for something waits here.

extension Call {
  /// Whether the caller would be served as before: a token may have been revoked since.
  var isStillAllowed: Bool { (try? access.caller(of: request)) == caller }

  /// Waits for a change of the topic since an instant, for as long as the caller may hear of it.
  ///
  /// - Throws: what the caller hears whose token was revoked meanwhile, or who may do something else by now.
  func change(
    of topic: Topic, since changes: UInt64, milliseconds: Int
  ) async throws(Problem) -> WaitingRoom.End {
    let deadline = Deadline.after(milliseconds: milliseconds)
    while true {
      let left = deadline.millisecondsLeft
      let end = await service.change(
        of: topic, since: changes, milliseconds: min(left, watchers.reviewMilliseconds))
      guard try access.caller(of: request) == caller else {
        throw Problem("unauthorized", "what \(caller.actor) may do has changed meanwhile")
      }
      if case .timeout = end, !deadline.hasPassed { continue }
      return end
    }
  }
}
