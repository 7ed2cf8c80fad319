internal import PloopControl
internal import PloopIO
internal import PloopJSON

/// A request that is answered when what it shows is newer than its caller knows:
/// `?after_revision=41&wait=30`. While it waits its connection is suspended, and no thread is its own.
struct Watch {
  static let parameters: Set<String> = ["after_revision", "wait"]
  static let longest: UInt64 = 60

  private let after: UInt64
  private let seconds: UInt64

  /// - Returns: nil when the request does not want to wait.
  private init?(_ call: Call) throws(Problem) {
    seconds = try call.number("wait", in: 0...Watch.longest, default: 0)
    guard call.parameter("after_revision") != nil else {
      // Clients that are made of the contract send what is the default, too.
      guard seconds == 0 else {
        throw Problem("value-impossible", "wait needs after_revision")
      }
      return nil
    }
    after = try call.number("after_revision", in: 0...UInt64(JSON.largestNumber), default: 0)
  }

  /// Answers by the route, at once or when there is something new.
  static func answer(_ call: Call, by route: Route) async throws(Problem) -> HTTPReply {
    guard let topic = route.topic?(call.arguments), let watch = try Watch(call) else {
      return try await route.handle(call)
    }
    return try await watch.answer(call, by: route, topic)
  }

  private func answer(
    _ call: Call, by route: Route, _ topic: Topic
  ) async throws(Problem) -> HTTPReply {
    let deadline = Deadline.after(seconds: Int(seconds))
    while true {
      let changes = call.service.changes
      // Something that is gone is an answer too: a problem.
      let reply = try await route.handle(call)
      guard let revision = reply.revision, revision <= after else { return reply }
      let left = deadline.millisecondsLeft
      guard left > 0 else { return reply.unchanged }
      switch try await call.change(of: topic, since: changes, milliseconds: left) {
      case .changed, .timeout: continue
      case .gone: return reply.unchanged
      case .closed: throw Problem("shutting-down", "the service is shutting down")
      case .full: throw Problem("too-many-watchers", "as many callers wait as may")
      }
    }
  }
}
