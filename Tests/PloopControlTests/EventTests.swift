import GRDB
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("The ring of events")
struct EventTests {
  private let folder: TemporaryFolder
  private let store: Store
  private let now = wallClockSeconds()

  init() throws {
    folder = try TemporaryFolder()
    store = try Store(path: folder.path)
  }

  @discardableResult
  private func note(
    _ type: EventType = .deviceChanged, _ subject: String = "a", hours: Double = 0
  ) throws -> UInt64 {
    try store.write { transaction throws(ServiceError) in
      let revision = try transaction.nextRevision()
      try transaction.note(type, subject, device: "a", at: revision, now: now + hours * 3600)
      return revision
    }
  }

  private func page(
    after: UInt64?, _ filter: EventFilter = EventFilter(), limit: Int = 100
  ) throws(ServiceError) -> Page<Event> {
    let shown = store.shownRevision
    return try store.read { transaction throws(ServiceError) in
      try transaction.events(after: after, through: shown, matching: filter, limit: limit)
    }
  }

  private func revisions(
    after: UInt64?, _ filter: EventFilter = EventFilter(), limit: Int = 100
  ) throws -> [UInt64] {
    try page(after: after, filter, limit: limit).items.compactMap(\.revision)
  }

  // MARK: Reading

  @Test("Each says who had it happen, and only those of some devices can be asked for")
  func actors() throws {
    try Requester.$name.withValue("token:a") { _ = try note(.deviceChanged, "a") }
    try note(.deviceChanged, "b")
    try store.write { transaction throws(ServiceError) in
      let revision = try transaction.nextRevision()
      try transaction.note(.jobState, "j", device: "vm1", at: revision, for: "uid:0", now: now)
    }
    try store.write { transaction throws(ServiceError) in
      let revision = try transaction.nextRevision()
      try transaction.note(.targetCreated, "nas", device: nil, at: revision, now: now)
    }
    #expect(try page(after: nil).items.map(\.actor) == ["token:a", nil, "uid:0", nil])
    for (pattern, found) in [("a", [1, 2]), ("vm?", [3]), ("*", [1, 2, 3]), ("b", [])] {
      let filter = EventFilter(devices: DeviceGlobs([pattern]))
      #expect(try revisions(after: nil, filter) == found.map(UInt64.init), "\(pattern)")
      for event in try page(after: nil).items {
        #expect(filter.matches(event) == found.contains(Int(event.revision ?? 0)))
      }
    }
  }

  @Test("Parts follow one another without a gap, whatever is left out")
  func pages() throws {
    for number in 0..<20 {
      try note(number % 2 == 0 ? .deviceChanged : .exportCreated, number % 3 == 0 ? "a" : "b")
    }
    let pattern = try #require(EventFilter.Pattern("export.*"))
    for filter in [EventFilter(), EventFilter(types: [pattern]), EventFilter(device: "none")] {
      for limit in 1...7 {
        var found: [Event] = []
        var cursor: UInt64 = 0
        while cursor < 20 {
          let page = try page(after: cursor, filter, limit: limit)
          found += page.items
          #expect(page.revision > cursor)
          cursor = page.revision
        }
        #expect(found == (try page(after: nil).items.filter(filter.matches)))
      }
    }
    #expect(try page(after: 20).items.isEmpty)
  }

  @Test(
    "A pattern is a type or all of a kind",
    arguments: [
      ("device.changed", true), ("device.*", true), ("device.state", false), ("job.*", false),
      ("devic.*", false),
    ])
  func patterns(text: String, fits: Bool) throws {
    try note()
    let filter = EventFilter(types: [try #require(EventFilter.Pattern(text))])
    #expect(try revisions(after: 0, filter) == (fits ? [1] : []))
    #expect(try page(after: 0).items.allSatisfy(filter.matches) == fits)
  }

  @Test(
    "What is no pattern is not taken for one",
    arguments: ["", "*", "device", "device.", ".x", "*.*", "a.b.c", "a.b*", "A.b", "a.[b]", "a.?"])
  func noPatterns(text: String) { #expect(EventFilter.Pattern(text) == nil) }

  // MARK: What is kept

  @Test("A cursor has expired as soon as something behind it is forgotten, and not before")
  func age() throws {
    try store.write { transaction throws(ServiceError) in
      for _ in 0..<3 { _ = try transaction.nextRevision() }
    }
    try note(hours: -30)
    try note(hours: -25)
    // Nothing has been forgotten that came behind the first revisions.
    #expect(try revisions(after: 5) == [])
    try note()
    #expect(try revisions(after: 5) == [6])
    #expect(try revisions(after: nil) == [6])
    for cursor in [UInt64(0), 3, 4] {
      let refusal = #expect(throws: ServiceError.self) { try page(after: cursor) }
      #expect(refusal?.code == .eventsExpired)
    }
  }

  @Test("10,000 are kept; a cursor of the future has expired too")
  func number() throws {
    try store.write { transaction throws(ServiceError) in
      try storing {
        try transaction.database.execute(
          sql: """
            WITH RECURSIVE n (r) AS (SELECT 1 UNION ALL SELECT r + 1 FROM n WHERE r < 10049)
            INSERT INTO events SELECT r, \(now), 'device.changed', 'a', 'a', NULL FROM n;
            UPDATE service SET revision = 10049;
            """)
      }
    }
    #expect(try note() == 10_050)
    #expect(try revisions(after: nil, limit: 20_000).count == 10_000)
    #expect(try revisions(after: 50, limit: 1) == [51])
    for cursor in [UInt64(49), 10_051] {
      let refusal = #expect(throws: ServiceError.self) { try page(after: cursor) }
      #expect(refusal?.code == .eventsExpired)
    }
    #expect(try page(after: 10_050).items.isEmpty)
  }

  @Test("Revisions without an event make no cursor expire")
  func gaps() throws {
    try note()
    try store.write { transaction throws(ServiceError) in
      for _ in 0..<5 { _ = try transaction.nextRevision() }
    }
    try note()
    for cursor in UInt64(0)...6 { #expect(try revisions(after: cursor).last == 7) }
    #expect(try revisions(after: 0) == [1, 7])
  }

  @Test("A database that is begun anew above the old one knows no old cursor")
  func anew() throws {
    let folder = try TemporaryFolder()
    try Tool.shell("echo no database > '\(folder.path)/ploopd.db'")
    let store = try Store(path: folder.path)
    let first = store.shownRevision
    for cursor in [UInt64(0), first - 1] {
      #expect(throws: ServiceError.self) {
        try store.read { transaction throws(ServiceError) in
          try transaction.events(
            after: cursor, through: first, matching: EventFilter(), limit: 1)
        }
      }
    }
  }

  // MARK: The order in which they are told

  @Test("Nothing is told before all that came before it, nor before it can be seen")
  func shown() throws {
    let told = Locked<[UInt64]>([])
    store.whenShown { [store] in told.withLock { $0.append(store.shownRevision) } }
    try store.write { transaction throws(ServiceError) in
      try transaction.note(.deviceChanged, "a", device: "a", at: try transaction.nextRevision())
    } show: {
      // Another change is quicker.
      #expect((try? note(.deviceChanged, "b")) == 2)
      #expect(store.shownRevision == 0)
      #expect((try? revisions(after: 0)) == [])
      #expect(store.lastRevision == 2)
    }
    #expect(try revisions(after: 0) == [1, 2])
    #expect(told.withLock { $0 } == [0, 2])
  }

  @Test(
    "What has a revision before it is written down holds back the others' events, not the others")
  func reserved() throws {
    var reserved = try store.reserve(2, above: 40)
    try note(.deviceChanged, "b")
    #expect(store.lastRevision == 43 && store.shownRevision <= 40)
    #expect(try revisions(after: 0).isEmpty)
    try store.write { transaction throws(ServiceError) in
      for _ in 0..<2 {
        try transaction.note(.deviceChanged, "a", device: "a", at: reserved.next())
      }
    }
    #expect(store.shownRevision <= 40)
    store.giveBack(reserved)
    #expect(try revisions(after: 0) == [41, 42, 43])
    // Of which nothing comes is a gap, and nothing else.
    store.giveBack(try store.reserve(1, above: 0))
    try note(.deviceChanged, "b")
    #expect(try revisions(after: 0) == [41, 42, 43, 45])
    // Nobody else's number makes ours too large to be told.
    #expect(throws: Never.self) { store.giveBack(try store.reserve(1, above: .max)) }
    #expect(store.lastRevision == (1 << 52) + 1)
  }

  @Test("Many writers and readers at once: every reader sees every revision once, in order")
  func concurrent() throws {
    let store = store
    let engine = IOEngine()
    defer { engine.stop(until: .after(seconds: 600)) }
    let (writers, writes, readers) = (4, 60, 3)
    let seen = Monitor<[[UInt64]]>([])
    for writer in 0..<writers {
      engine.submit {
        for number in 0..<writes {
          // Some fail, and give their revision back.
          try? store.write { transaction throws(ServiceError) in
            for _ in 0...(number % 3) {
              try transaction.note(
                .deviceChanged, "w\(writer)", device: nil, at: try transaction.nextRevision())
            }
            if number % 7 == 0 { throw ServiceError(.deviceBusy, "no") }
          } show: { _ in
            if number % 5 == 0 { _ = try? Tool.shell("true") }
          }
        }
      }
    }
    let failed = (0..<writes).filter { $0 % 7 == 0 }.map { $0 % 3 + 1 }.reduce(0, +)
    let all = UInt64(writers * ((0..<writes).map { $0 % 3 + 1 }.reduce(0, +) - failed))
    let deadline = Deadline.after(seconds: 60)
    for reader in 0..<readers {
      engine.submit {
        var found: [UInt64] = []
        var cursor: UInt64 = 0
        while cursor < all, !deadline.hasPassed {
          let shown = store.shownRevision
          let page = try? store.read { [cursor] transaction throws(ServiceError) in
            try transaction.events(
              after: cursor, through: shown, matching: EventFilter(), limit: reader * 5 + 1)
          }
          found += page?.items.compactMap(\.revision) ?? []
          cursor = page?.revision ?? cursor
        }
        seen.update { $0.append(found) }
      }
    }
    let lists = seen.wait(until: deadline) { $0.count == readers ? $0 : nil } ?? []
    #expect(lists.count == readers)
    for list in lists { #expect(list == Array(1...all)) }
  }

  // MARK: What is not kept

  @Test("What is not kept is told once in a second for each subject, and only to who was there")
  func transient() throws {
    let events = TransientEvents()
    let second: UInt64 = 1_000_000_000
    func event(_ subject: String, at: Double) -> Event {
      Event(revision: nil, at: at, type: "job.progress", subject: subject, device: nil)
    }
    #expect(events.publish(event("a", at: 1), now: 10 * second))
    let late = events.last
    #expect(!events.publish(event("a", at: 2), now: 11 * second - 1))
    #expect(events.publish(event("b", at: 3), now: 11 * second - 1))
    #expect(events.events(after: 0, matching: EventFilter()).0.map(\.at) == [1, 3])
    #expect(events.publish(event("a", at: 4), now: 11 * second))
    let (found, cursor) = events.events(after: late, matching: EventFilter())
    #expect(found.map(\.at) == [3, 4])
    #expect(events.events(after: cursor, matching: EventFilter()).0.isEmpty)
    #expect(events.events(after: 0, matching: EventFilter(device: "d")).0.isEmpty)
    // Nobody misses anything new by looking half a minute later; and nothing stays for ever.
    #expect(events.publish(event("c", at: 5), now: 60 * second))
    #expect(events.events(after: 0, matching: EventFilter()).0.map(\.at) == [5])
  }

  @Test("What may not be missed is told however soon it comes again, the newest of each subject")
  func unlimited() throws {
    let events = TransientEvents()
    for at in 1...3 {
      let event = Event(
        revision: nil, at: Double(at), type: "client.gone", subject: "vm", device: "vm")
      #expect(events.publish(event, isLimited: false, now: 1))
    }
    let (found, cursor) = events.events(after: 0, matching: EventFilter(device: "vm"))
    #expect(found.map(\.at) == [3] && cursor == 3)
  }

  // MARK: Waiting

  @Test("Who waits for events is not counted with the others, and whoever is cancelled leaves")
  func waiting() async throws {
    let room = try WaitingRoom(limit: 1)
    let executor = try ThreadExecutor(name: "waiting")
    func wait(_ topic: Topic) -> Task<WaitingRoom.End, Never> {
      Task(executorPreference: executor) {
        await room.wait(for: topic, since: room.changes, milliseconds: 3_600_000)
      }
    }
    let waiting = [wait(.events), wait(.events), wait(.service)]
    let deadline = Deadline.after(seconds: 600)
    while room.count < 3, !deadline.hasPassed { try Tool.shell("true") }
    #expect(await wait(.service).value == .full)
    waiting[0].cancel()
    waiting[2].cancel()
    #expect(await waiting[0].value == .gone)
    #expect(await waiting[2].value == .gone)
    #expect(room.count == 1)
    let cancelled = wait(.service)
    cancelled.cancel()
    #expect(await cancelled.value == .gone)
    room.changed([.events])
    #expect(await waiting[1].value == .changed)
    #expect(room.count == 0)
  }
}
