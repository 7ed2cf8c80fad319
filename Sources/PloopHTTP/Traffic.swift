internal import PloopControl
internal import PloopIO

/// How many requests were answered, by route and outcome, and how long that took.
package final class Traffic: Sendable {
  private struct Kind: Hashable, Comparable {
    /// The template of the route: what callers put into it would be names without end.
    let route: String
    let method: String
    let status: Int

    static func < (left: Kind, right: Kind) -> Bool {
      (left.route, left.method, left.status) < (right.route, right.method, right.status)
    }
  }

  /// Of one kind, which any number of threads may count.
  final class Tally: Sendable {
    /// One for each boundary and one for all beyond, then nanoseconds of all together.
    private let counters = AtomicCounters(count: Traffic.boundaries.count + 2)

    /// - Parameter start: when the request came, in nanoseconds of the monotonic clock.
    func count(since start: UInt64) {
      let nanoseconds = monotonicNanoseconds() - start
      let seconds = Double(nanoseconds) / 1e9
      let boundaries = Traffic.boundaries
      counters.add(1, at: boundaries.firstIndex { seconds <= $0 } ?? boundaries.count)
      counters.add(nanoseconds, at: boundaries.count + 1)
    }

    fileprivate var requests: UInt64 {
      (0...Traffic.boundaries.count).reduce(0) { $0 &+ counters[$1] }
    }

    fileprivate func add(to times: inout Metric.Histogram) {
      for index in times.counts.indices { times.counts[index] &+= counters[index] }
      times.sum += Double(counters[Traffic.boundaries.count + 1]) / 1e9
    }
  }

  /// Upper edges, in seconds; requests that wait for something take longer.
  private static let boundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10]
  private static let methods: Set = ["GET", "HEAD", "OPTIONS", "POST", "PATCH", "PUT", "DELETE"]
  /// Of requests for which there is no route.
  static let noRoute = "none"

  private let state = Locked<[Kind: Tally]>([:])

  package init() {}

  /// Where requests are counted that have an outcome.
  func tally(_ method: String, _ route: String?, _ status: Int) -> Tally {
    let kind = Kind(
      route: route ?? Traffic.noRoute,
      method: Traffic.methods.contains(method) ? method : "other", status: status)
    return state.withLock { tallies in
      if let tally = tallies[kind] { return tally }
      let tally = Tally()
      tallies[kind] = tally
      return tally
    }
  }

  var metrics: [Metric] {
    let tallies = state.withLock { $0 }
    var times: [String: Metric.Histogram] = [:]
    for (kind, tally) in tallies {
      tally.add(to: &times[kind.route, default: Metric.Histogram(Traffic.boundaries)])
    }
    return [
      Metric(
        .counter, "ploopd_http_requests_total", "Requests that were answered.",
        tallies.sorted { $0.key < $1.key }.map { kind, tally in
          Metric.Sample(
            .number(Double(tally.requests)),
            [("route", kind.route), ("method", kind.method), ("code", String(kind.status))])
        }),
      Metric(
        .histogram, "ploopd_http_request_seconds",
        "How long requests took, those that were to wait included.",
        times.sorted { $0.key < $1.key }.map { route, times in
          Metric.Sample(.histogram(times), [("route", route)])
        }),
    ]
  }
}
