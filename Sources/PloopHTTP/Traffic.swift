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

  private struct State {
    var requests: [Kind: UInt64] = [:]
    var times: [String: Metric.Histogram] = [:]
  }

  /// Upper edges, in seconds; requests that wait for something take longer.
  private static let boundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10]
  private static let methods: Set = ["GET", "HEAD", "OPTIONS", "POST", "PATCH", "PUT", "DELETE"]
  /// Of requests for which there is no route.
  static let noRoute = "none"

  private let state = Locked(State())

  package init() {}

  /// - Parameter start: when it came, in nanoseconds of the monotonic clock.
  func count(_ method: String, _ route: String?, _ status: Int, since start: UInt64) {
    let seconds = Double(monotonicNanoseconds() - start) / 1e9
    let kind = Kind(
      route: route ?? Traffic.noRoute,
      method: Traffic.methods.contains(method) ? method : "other", status: status)
    state.withLock { state in
      state.requests[kind, default: 0] += 1
      state.times[kind.route, default: Metric.Histogram(Traffic.boundaries)]
        .count(seconds: seconds)
    }
  }

  var metrics: [Metric] {
    let (requests, times) = state.withLock { ($0.requests, $0.times) }
    return [
      Metric(
        .counter, "ploopd_http_requests_total", "Requests that were answered.",
        requests.sorted { $0.key < $1.key }.map { kind, count in
          Metric.Sample(
            .number(Double(count)),
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
