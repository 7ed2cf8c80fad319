internal import PloopControl
internal import PloopIO
internal import PloopJSON

/// Events as `text/event-stream` (WHATWG HTML, "Server-sent events"), read from the ring as fast as
/// the client takes them. A client that comes back with the last `id` goes on behind it.
struct EventStream: Sendable {
  /// Rows that are read from the ring at a time.
  private static let page = 100
  /// What is sent at a time, about: an object more at most.
  private static let pieceBytes = 32 << 10

  let call: Call
  let filter: EventFilter
  /// The revision behind which to begin; nil for what is to come.
  let after: UInt64?
  /// Given up when the stream ends.
  let place: EventWatchers.Place
  /// Where a stream of what is to come begins: taken before the client sees any of the reply, or what
  /// it does then could be missed.
  private let now: EventCursor

  init(call: Call, filter: EventFilter, after: UInt64?, place: EventWatchers.Place) {
    self.call = call
    self.filter = filter
    self.after = after
    self.place = place
    now = call.service.eventCursor
  }

  /// Where a stream has come to.
  private struct Position {
    var cursor: EventCursor
    /// The last `id` that was sent.
    var told: UInt64?
    /// The ring has been read up to the cursor at least once: before, the cursor is the client's.
    var isKnown: Bool
    var heartbeat: Deadline
  }

  func run(_ body: StreamBody) async {
    var position = Position(
      cursor: now, told: nil, isKnown: after == nil, heartbeat: nextHeartbeat)
    if let after { position.cursor.revision = after }
    // From here on nothing is lost, even if the connection is before anything happens.
    guard await body.send(opening(&position)) else { return }
    while true {
      let changes = call.service.changes
      do throws(ServiceError) {
        guard try await tellNews(&position, body) else { return }
      } catch {
        guard error.code == .eventsExpired else { return }
        guard await reset(&position, body) else { return }
        continue
      }
      let left = position.heartbeat.millisecondsLeft
      guard left > 0 else {
        guard await body.send(heartbeat(&position)) else { return }
        continue
      }
      switch try? await call.change(of: .events, since: changes, milliseconds: left) {
      case .changed?, .timeout?: continue
      case .closed?, .full?, .gone?, nil: return
      }
    }
  }

  private var nextHeartbeat: Deadline {
    .after(milliseconds: call.watchers.heartbeatMilliseconds)
  }

  private func opening(_ position: inout Position) -> [UInt8] {
    Array("retry: 2000\n\(position.isKnown ? idLine(&position) : "")\n".utf8)
  }

  /// A comment, and how far the client has come if that is not known to it: what its filter leaves out
  /// must not make its cursor old.
  private func heartbeat(_ position: inout Position) -> [UInt8] {
    position.heartbeat = nextHeartbeat
    let isBehind = position.told.map { $0 < position.cursor.revision } ?? true
    return Array(": heartbeat\n\(isBehind ? idLine(&position) : "")\n".utf8)
  }

  private func idLine(_ position: inout Position) -> String {
    position.told = position.cursor.revision
    return "id: \(position.cursor.revision)\n"
  }

  private func reset(_ position: inout Position, _ body: StreamBody) async -> Bool {
    position.cursor.revision = call.service.eventCursor.revision
    position.isKnown = true
    position.heartbeat = nextHeartbeat
    let data = JSON.members(["revision": .count(position.cursor.revision)])
    return await body.send(
      Array("event: reset\n\(idLine(&position))data: ".utf8) + data.encoded + Array("\n\n".utf8))
  }

  /// Sends everything that is new.
  ///
  /// - Returns: false when nobody takes it.
  private func tellNews(
    _ position: inout Position, _ body: StreamBody
  ) async throws(ServiceError) -> Bool {
    let (fleeting, number) = call.service.transientEvents(
      after: position.cursor.transient, matching: filter)
    position.cursor.transient = number
    guard await tell(fleeting, &position, body) else { return false }
    while !position.isKnown || call.service.eventCursor.revision > position.cursor.revision {
      // Who reads more slowly than things happen never comes to wait.
      guard call.isStillAllowed else { return false }
      let page = try await call.service.events(
        after: position.cursor.revision, matching: filter, limit: EventStream.page)
      position.isKnown = true
      guard await tell(page.items, &position, body) else { return false }
      position.cursor.revision = page.revision
    }
    return true
  }

  private func tell(
    _ events: [Event], _ position: inout Position, _ body: StreamBody
  ) async -> Bool {
    var piece: [UInt8] = []
    for event in events {
      piece += await text(of: event)
      if let revision = event.revision { position.told = revision }
      guard piece.count >= EventStream.pieceBytes else { continue }
      guard await body.send(piece) else { return false }
      piece = []
    }
    if !events.isEmpty { position.heartbeat = nextHeartbeat }
    return piece.isEmpty ? true : await body.send(piece)
  }

  private func text(of event: Event) async -> [UInt8] {
    let id = event.revision.map { "id: \($0)\n" } ?? ""
    let data = await call.json(of: event).encoded
    return Array("\(id)event: \(event.type)\ndata: ".utf8) + data + Array("\n\n".utf8)
  }
}
