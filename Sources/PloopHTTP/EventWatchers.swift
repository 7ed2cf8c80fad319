internal import PloopControl
internal import PloopIO

/// How many listen to events, as streams and by waiting, and how streams are kept alive.
package final class EventWatchers: Sendable {
  /// A place among them, given up with the object.
  final class Place: Sendable {
    private let watchers: EventWatchers

    fileprivate init(_ watchers: EventWatchers) { self.watchers = watchers }

    deinit { watchers.taken.withLock { $0 -= 1 } }
  }

  /// A stream says something after that time, so that either side knows of the other.
  let heartbeatMilliseconds: Int
  private let limit: Int
  private let taken = Locked(0)

  package init(
    limit: Int = ServiceLimits().maxEventClients, heartbeatMilliseconds: Int = 15_000
  ) {
    self.limit = limit
    self.heartbeatMilliseconds = heartbeatMilliseconds
  }

  func enter() throws(Problem) -> Place {
    let isIn = taken.withLock { taken in
      guard taken < limit else { return false }
      taken += 1
      return true
    }
    guard isIn else {
      throw Problem("too-many-watchers", "\(limit) clients listen to events; that is the limit")
    }
    return Place(self)
  }

  /// How many places are taken.
  var count: Int { taken.withLock { $0 } }

  var metric: Metric {
    Metric(.gauge, "ploopd_event_clients", "Clients that listen to events.", Double(count))
  }
}
