internal import PloopControl
internal import PloopIO

/// How many listen to events, as streams and by waiting, how streams are kept alive, and how those who wait are
/// judged anew.
package final class EventWatchers: Sendable {
  /// A place among them, given up with the object.
  final class Place: Sendable {
    private let watchers: EventWatchers
    private let actor: String

    fileprivate init(_ watchers: EventWatchers, _ actor: String) {
      self.watchers = watchers
      self.actor = actor
    }

    deinit { watchers.leave(actor) }
  }

  /// A stream says something after that time, so that either side knows of the other.
  let heartbeatMilliseconds: Int
  /// Whoever waits for a change is asked again after that time who he is.
  let reviewMilliseconds: Int
  private let limit: Int
  /// By who has them.
  private let taken = Locked<[String: Int]>([:])

  package init(
    limit: Int = ServiceLimits().maxEventClients, heartbeatMilliseconds: Int = 15_000,
    reviewMilliseconds: Int = 5_000
  ) {
    self.limit = limit
    self.heartbeatMilliseconds = heartbeatMilliseconds
    self.reviewMilliseconds = reviewMilliseconds
  }

  /// Who may not do everything has a quarter of the places at most: others want to listen too.
  func enter(_ caller: Caller) throws(Problem) -> Place {
    let share = caller.grant.allows(.admin) ? limit : max(1, limit / 4)
    let refusal: String? = taken.withLock { taken in
      guard taken.values.reduce(0, +) < limit else {
        return "\(limit) clients listen to events; that is the limit"
      }
      guard taken[caller.actor, default: 0] < share else {
        return "\(share) clients of \(caller.actor) listen to events; that is the limit"
      }
      taken[caller.actor, default: 0] += 1
      return nil
    }
    if let refusal { throw Problem("too-many-watchers", refusal) }
    return Place(self, caller.actor)
  }

  private func leave(_ actor: String) {
    taken.withLock { taken in
      let count = taken[actor, default: 0]
      taken[actor] = count > 1 ? count - 1 : nil
    }
  }

  /// How many places are taken.
  var count: Int { taken.withLock { $0.values.reduce(0, +) } }

  var metric: Metric {
    Metric(.gauge, "ploopd_event_clients", "Clients that listen to events.", Double(count))
  }
}
