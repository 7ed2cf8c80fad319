import PloopIO
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("Events over HTTP")
struct EventTests {
  private let everything = [
    "6 device.created", "7 export.created", "8 device.deleted", "9 job.state",
  ]

  private func waits(for condition: () -> Bool) throws -> Bool {
    let deadline = Deadline.after(seconds: 600)
    while !condition() {
      guard !deadline.hasPassed else { return false }
      try Tool.shell("true")
    }
    return true
  }

  // MARK: Streams

  @Test("a stream begins where its client was, goes on with what happens, and has no thread")
  func stream() throws {
    let live = try LiveServer()
    let client = try live.client()
    let head = try #require(client.listen("?after=5"))
    #expect(head.status == 200)
    #expect(head.header("Content-Type") == "text/event-stream")
    #expect(head.header("Cache-Control") == "no-store")
    #expect(client.block() == "retry: 2000")
    #expect(client.events(4) == everything)
    live.service.note("device.changed", "vm1", device: "vm1")
    let block = try #require(client.block())
    #expect(block.hasPrefix("id: 10\nevent: device.changed\ndata: {\"revision\":10,"))
    #expect(block.contains("\"resource\":\"/v1/devices/vm1\",\"object\":{\"id\":\"vm1\","))
    live.service.note("device.deleted", "vm1", device: "vm1")
    #expect(client.block()?.contains("object") == false)
    live.service.note("thing.made", "a b", device: nil)
    #expect(client.block()?.hasSuffix("\"device\":null,\"actor\":null,\"resource\":null}") == true)
  }

  @Test("a new client hears of what is to come, and knows from the first moment where to go on")
  func live() throws {
    let live = try LiveServer()
    let client = try live.client(.tcp)
    #expect(client.listen()?.status == 200)
    // No later than the head of the reply.
    live.service.note("device.changed", "vm1", device: "vm1")
    #expect(client.block() == "retry: 2000\nid: 9")
    #expect(client.events(1) == ["10 device.changed"])
    client.close()
    let again = try live.client()
    #expect(again.listen("", "Last-Event-ID: 9\r\n")?.status == 200)
    #expect(again.events(1) == ["10 device.changed"])
  }

  @Test("the header goes before the query, with which a browser comes back")
  func lastEventID() throws {
    let live = try LiveServer()
    let client = try live.client()
    #expect(client.listen("?after=5", "Last-Event-ID: 8\r\n")?.status == 200)
    #expect(client.events(1) == ["9 job.state"])
    #expect(try live.client().listen("", "Last-Event-ID: x\r\n")?.status == 400)
    #expect(try live.client().listen("?after=x")?.status == 400)
  }

  @Test(
    "only what is wanted comes",
    arguments: [
      ("types=device.*", ["6 device.created", "8 device.deleted", "10 device.last"]),
      ("types=job.state,device.last", ["9 job.state", "10 device.last"]),
      ("device=vm1", ["6 device.created", "7 export.created", "10 device.last"]),
      ("device=vm1&types=device.*", ["6 device.created", "10 device.last"]),
    ])
  func filters(query: String, events: [String]) throws {
    let live = try LiveServer()
    live.service.note("device.last", "vm1", device: "vm1")
    let client = try live.client()
    #expect(client.listen("?after=5&\(query)")?.status == 200)
    #expect(client.events(events.count) == events)
  }

  @Test("a cursor that is too old, or of another life, costs one reset", arguments: [4, 10])
  func reset(after: Int) throws {
    let live = try LiveServer()
    let client = try live.client()
    #expect(client.listen("?after=\(after)")?.status == 200)
    #expect(client.block() == "retry: 2000")
    #expect(client.block() == "event: reset\nid: 9\ndata: {\"revision\":9}")
    live.service.note("device.changed", "vm1", device: "vm1")
    #expect(client.events(1) == ["10 device.changed"])
  }

  @Test("what is not kept is streamed without an id, to those who want it")
  func transient() throws {
    let live = try LiveServer()
    let (all, others) = (try live.client(), try live.client())
    for (client, query) in [(all, ""), (others, "?types=device.*")] {
      #expect(client.listen(query)?.status == 200)
      #expect(client.block() == "retry: 2000\nid: 9")
    }
    let event = Event(revision: nil, at: 0, type: "job.progress", subject: "j", device: nil)
    #expect(live.service.transients.publish(event))
    live.service.waiting.changed([.events])
    #expect(all.events(1) == ["- job.progress"])
    live.service.note("device.changed", "vm1", device: "vm1")
    #expect(all.events(1) == ["10 device.changed"])
    #expect(others.events(1) == ["10 device.changed"])
  }

  @Test("a heartbeat tells a client how far it has come when nothing is for it")
  func heartbeat() throws {
    let live = try LiveServer(watchers: EventWatchers(heartbeatMilliseconds: 50))
    let client = try live.client()
    #expect(client.listen("?types=none.*")?.status == 200)
    #expect(client.block() == "retry: 2000\nid: 9")
    #expect(client.block() == ": heartbeat")
    live.service.note("device.changed", "vm1", device: "vm1")
    var block = client.block()
    while block == ": heartbeat" { block = client.block() }
    #expect(block == ": heartbeat\nid: 10")
    #expect(client.block() == ": heartbeat")
  }

  @Test("HEAD and OPTIONS are answered, and nobody listens then")
  func otherMethods() throws {
    let live = try LiveServer()
    var client = try live.client()
    let accept = "Host: localhost\r\nAccept: text/event-stream\r\n\r\n"
    client.send("HEAD /v1/events HTTP/1.1\r\n\(accept)")
    let head = try #require(client.reply(hasBody: false))
    #expect(head.status == 200)
    #expect(head.header("Content-Type") == "text/event-stream")
    #expect(head.header("Content-Length") == nil)
    #expect(client.isEnded())
    client = try live.client()
    client.send("OPTIONS /v1/events HTTP/1.1\r\n\(accept)")
    #expect(client.reply()?.header("Allow") == "GET, HEAD, OPTIONS")
    client.send("DELETE /v1/events HTTP/1.1\r\n\(accept)")
    #expect(client.reply()?.status == 405)
    #expect(live.watchers.count == 0)
  }

  @Test("a client of HTTP/1.0 gets the stream too")
  func old() throws {
    let live = try LiveServer()
    // The stream ends behind what there is.
    live.service.waiting.close()
    let text = try live.curl("-N -0 -H 'Accept: text/event-stream'", "/v1/events?after=5")
    #expect(text.contains("id: 9\nevent: job.state\n"))
  }

  // MARK: How many, and how they end

  @Test("64 listen, the next is told to come later, and a place is free soon after its client left")
  func limit() throws {
    let live = try LiveServer()
    var clients = try (0..<64).map { _ in try live.client() }
    for client in clients { #expect(client.listen()?.status == 200) }
    let next = try live.client()
    let refusal = try #require(next.listen())
    #expect(refusal.status == 429)
    #expect(refusal.header("Retry-After") == "1")
    #expect(refusal.body.contains("too-many-watchers"))
    let waiting = try live.curl("", "/v1/events?after=9&wait=1")
    #expect(waiting.contains("too-many-watchers"))
    live.service.note("device.changed", "vm1", device: "vm1")
    for client in clients { #expect(client.events(1) == ["10 device.changed"]) }
    clients.removeFirst().close()
    #expect(try waits { live.watchers.count == 63 })
    #expect(next.listen()?.status == 200)
    clients.removeFirst().reset()
    #expect(try waits { live.watchers.count == 63 })
  }

  @Test("whoever hangs up while waiting gives its place free", arguments: LiveServer.Door.allCases)
  func hangUp(door: LiveServer.Door) throws {
    let live = try LiveServer()
    let targets = ["/v1/events?after=9&wait=60", "/v1/devices/vm1?after_revision=41&wait=60"]
    let clients = try targets.map { target in
      let client = try live.client(door)
      client.send("GET \(target) HTTP/1.1\r\nHost: localhost\r\n\r\n")
      return client
    }
    #expect(try waits { live.service.waiting.count == 2 })
    clients.forEach { $0.close() }
    let began = monotonicNanoseconds()
    #expect(try waits { live.service.waiting.count == 0 && live.watchers.count == 0 })
    #expect(monotonicNanoseconds() - began < 15_000_000_000)
  }

  @Test("a reader that does not read is not fed, others are served, and it loses nothing")
  func slowReader() throws {
    let live = try LiveServer()
    let slow = try live.client()
    #expect(slow.listen("?after=9")?.status == 200)
    for _ in 0..<3000 { live.service.note("device.changed", "vm1", device: "vm1") }
    let quick = try live.client()
    #expect(quick.listen("?after=9")?.status == 200)
    let wanted = (10..<3010).map { "\($0) device.changed" }
    #expect(quick.events(3000) == wanted)
    #expect(try live.curl("", "/healthz") == "{\"status\":\"ok\"}\n")
    #expect(slow.events(3000) == wanted)
  }

  @Test("who takes nothing for too long is cut off, who has nothing to take is not")
  func stuckReader() throws {
    var limits = HTTPLimits()
    limits.idleSeconds = 1
    let live = try LiveServer(limits: limits)
    for _ in 0..<3000 { live.service.note("device.changed", "vm1", device: "vm1") }
    let (idle, stuck) = (try live.client(), try live.client())
    #expect(idle.listen()?.status == 200)
    #expect(stuck.listen("?after=9")?.status == 200)
    #expect(try waits { live.watchers.count == 1 })
    live.service.note("device.changed", "vm1", device: "vm1")
    #expect(idle.events(1) == ["3010 device.changed"])
  }

  @Test("a server that is stopped ends its streams, also of a client that does not read")
  func stop() throws {
    let live = try LiveServer()
    let (idle, stuck) = (try live.client(), try live.client())
    for _ in 0..<3000 { live.service.note("device.changed", "vm1", device: "vm1") }
    #expect(idle.listen()?.status == 200)
    #expect(stuck.listen("?after=9")?.status == 200)
    let waiting = try live.client()
    waiting.send("GET /v1/events?after=3009&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    #expect(try waits { live.service.waiting.count == 2 })
    let began = monotonicNanoseconds()
    live.service.waiting.close()
    live.server.stop(until: .after(seconds: 600))
    #expect(monotonicNanoseconds() - began < 10_000_000_000)
    #expect(idle.block() == "retry: 2000\nid: 3009")
    #expect(idle.block() == nil)
    #expect(idle.hasStreamEnded)
    #expect(waiting.reply()?.status == 503)
    #expect(try waits { live.watchers.count == 0 })
  }

  // MARK: Lists

  @Test("a list goes on from part to part, and waits when there is nothing")
  func list() throws {
    let live = try LiveServer()
    let all = try live.curl("", "/v1/events")
    #expect(all.hasSuffix("],\"revision\":9}\n"))
    let first = try live.curl("", "/v1/events?limit=3")
    #expect(first.hasSuffix("],\"revision\":8}\n"))
    let rest = try live.curl("", "/v1/events?after=8")
    #expect(rest.hasPrefix("{\"items\":[{\"revision\":9,\"type\":\"job.state\","))
    let waiting = try live.client()
    waiting.send(
      "GET /v1/events?after=9&wait=60&types=export.* HTTP/1.1\r\nHost: localhost\r\n\r\n")
    #expect(try waits { live.service.waiting.count == 1 })
    live.service.note("device.changed", "vm1", device: "vm1")
    live.service.note("export.created", "vm1", device: "vm1")
    let body = try #require(waiting.reply()?.body)
    #expect(body.hasPrefix("{\"items\":[{\"revision\":11,\"type\":\"export.created\","))
    #expect(body.hasSuffix("],\"revision\":11}\n"))
    #expect(
      try live.curl("", "/v1/events?after=11&wait=1") == "{\"items\":[],\"revision\":11}\n")
    let expired = try live.curl("", "/v1/events?after=4")
    #expect(expired.contains("\"code\":\"events-expired\""))
    #expect(expired.contains("\"current_revision\":11"))
  }

  @Test(
    "wrong parameters are refused",
    arguments: [
      "wait=1", "after=x", "after=1&wait=61", "limit=0", "types=", "types=device", "types=*.*",
      "types=a.b,,c.d", "types=Device.made", "type=a.b", "after=9007199254740992",
    ])
  func refused(query: String) throws {
    let live = try LiveServer()
    // A wait for nothing is well-formed, and makes no sense.
    let wanted = query == "wait=1" ? "422" : "400"
    #expect(try live.curl("-o /dev/null -w '%{http_code}'", "/v1/events?\(query)") == wanted)
  }

  @Test(
    "a stream is for those who say so",
    arguments: [
      ("text/event-stream", true), ("Text/Event-Stream;q=0.5", true),
      ("application/json, text/event-stream", true), ("text/event-stream;q=0", false),
      ("text/event-stream; q=0.0", false), ("*/*", false), ("application/json", false),
    ])
  func accept(value: String, isStream: Bool) throws {
    let live = try LiveServer()
    let head = try live.curl("-I -H 'Accept: \(value)'", "/v1/events")
    #expect(head.contains("Content-Type: text/event-stream") == isStream)
  }
}
