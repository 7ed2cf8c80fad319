import Foundation
import TestSupport
import Testing

@Suite("Snapshots and backups that are pruned")
struct PruneTests {
  private let fixture: CopyFixture
  private var service: RunningService { fixture.service }

  init() throws { fixture = try CopyFixture() }

  /// Snapshots that were made at noon of some days, each of another content, and what each of them holds.
  private func snapshots(_ days: [String]) throws -> [(guid: String, raw: String)] {
    var made: [(guid: String, raw: String)] = []
    for (number, _) in days.enumerated() {
      try fixture.write("vm", number + 1, "\(number)M 3M", "\(20 + number)M 1M")
      let raw = try fixture.save("vm", "raw\(number)")
      made.append((try fixture.snapshot("vm"), raw))
    }
    // What people know of them says when they were made.
    try Tool.python(
      """
      import calendar, json, sys, time
      path, pairs = sys.argv[1], sys.argv[2:]
      notes = json.load(open(path))
      for pair in pairs:
          guid, day = pair.split('=')
          moment = calendar.timegm(time.strptime(day + 'T12:00', '%Y-%m-%dT%H:%M'))
          notes.setdefault(guid, {'labels': {}, 'isProtected': False})['createdAt'] = moment
      json.dump(notes, open(path, 'w'))
      """,
      ["\(service.images)/vm/DiskDescriptor.xml.notes"]
        + zip(made, days).map { "\($0.guid)=\($1)" })
    return made
  }

  private func expect(_ guid: String, is raw: String) throws {
    let name = "look"
    #expect(
      try service.post(
        "/v1/exports",
        "{\"name\":\"\(name)\",\"device\":\"vm\",\"snapshot\":\"\(guid)\",\"readonly\":true}"
      ).status == 201)
    try fixture.expect(name, is: raw)
    #expect(try service.delete("/v1/exports/\(name)?mode=hard").status == 204)
  }

  private func prune(_ rules: String, _ more: String = "") throws -> [String: Any] {
    try fixture.end(
      of: fixture.job("{\"type\":\"prune\",\"device\":\"vm\",\"params\":{\(rules)}\(more)}"))
  }

  private func there() throws -> Set<String> {
    let items = try service.get("/v1/devices/vm/snapshots").json["items"] as? [[String: Any]]
    return Set((items ?? []).compactMap { $0["uuid"] as? String })
  }

  /// By snapshot, the rules that keep it.
  private func plan(_ rules: String) throws -> [String: [String]] {
    let reply = try service.post(
      "/v1/jobs?dry_run=true", "{\"type\":\"prune\",\"device\":\"vm\",\"params\":{\(rules)}}")
    let details = (reply.json["plan"] as? [String: Any])?["details"] as? [String: Any]
    let items = details?["snapshots"] as? [[String: Any]] ?? []
    for item in items {
      #expect((item["rules"] as? [Any])?.isEmpty == !(item["keep"] as? Bool ?? false))
    }
    return Dictionary(
      uniqueKeysWithValues: items.map {
        ($0["uuid"] as? String ?? "", $0["rules"] as? [String] ?? [])
      })
  }

  @Test("leave what a rule keeps, each as it was, and say which rule before anything is done")
  func rules() throws {
    let days = [
      "2025-12-31", "2026-11-15", "2026-11-16", "2026-11-20", "2026-11-21", "2026-11-22",
    ]
    let made = try snapshots(days)
    let rules = #""keep_last":1,"daily":2,"weekly":2,"yearly":2"#
    let plan = try plan(rules)
    let reasons = made.map { plan[$0.guid] ?? ["missing"] }
    #expect(
      reasons == [
        ["yearly"], ["weekly"], [], [], ["daily"], ["keep_last", "daily", "weekly", "yearly"],
      ])
    #expect(try there().count == 6)
    let now = try fixture.save("vm", "now")
    let done = try prune(rules)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    let removed = (done["result"] as? [String: Any])?["removed"] as? [String]
    #expect(removed == [made[3].guid, made[2].guid])
    let progress = done["progress"] as? [String: Any]
    #expect(progress?["done_clusters"] as? Int == progress?["total_clusters"] as? Int)
    for index in [0, 1, 4, 5] { try expect(made[index].guid, is: made[index].raw) }
    try fixture.expect("vm", is: now)
    // What was decided stays decided.
    let again = try prune(rules)
    #expect(((again["result"] as? [String: Any])?["removed"] as? [Any])?.isEmpty == true)
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
  }

  @Test("leave what is protected, what several states build on, and what has no time")
  func kept() throws {
    let made = try snapshots(["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"])
    #expect(
      try service.patch("/v1/devices/vm/snapshots/\(made[1].guid)", #"{"protected":true}"#).status
        == 200)
    // Back to the third, with the state so far as a branch of its own.
    let switched = try service.post(
      "/v1/devices/vm/snapshots/\(made[2].guid)/switch", #"{"keep_top_as":"side"}"#)
    #expect((200..<300).contains(switched.status), "\(switched.text)")
    let plan = try plan(#""keep_last":1"#)
    #expect(plan[made[1].guid] == ["snapshot-protected"])
    #expect(plan[made[2].guid] == ["snapshot-has-branches"])
    #expect(plan[made[0].guid] == [])
    let done = try prune(#""keep_last":1"#)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(try !there().contains(made[0].guid))
    #expect(try there().isSuperset(of: [made[1].guid, made[2].guid]))
    try expect(made[1].guid, is: made[1].raw)
    try expect(made[2].guid, is: made[2].raw)
  }

  @Test("are made whole by the same job after kill -9, and can be cancelled between two of them")
  func killed() throws {
    let made = try snapshots((1...5).map { "2026-01-0\($0)" })
    let now = try fixture.save("vm", "now")
    let id = try fixture.job(
      #"{"type":"prune","device":"vm","params":{"keep_last":1},"limits":{"bps":1048576}}"#)
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    service.kill()
    try service.start()
    try fixture.expect("vm", is: now)
    try fixture.await(id) { $0["state"] as? String == "running" && fixture.doneBytes($0) > 0 }
    let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    for snapshot in made where try there().contains(snapshot.guid) {
      try expect(snapshot.guid, is: snapshot.raw)
    }
    let done = try prune(#""keep_last":1"#)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(try there() == [made[4].guid])
    try expect(made[4].guid, is: made[4].raw)
    try fixture.expect("vm", is: now)
  }

  @Test("of backups, go with what builds on them, and never what something kept needs")
  func backups() throws {
    #expect(
      try service.post(
        "/v1/targets", #"{"name":"nas","type":"directory","path":"backups"}"#
      ).status == 201)
    var points: [String] = []
    for (number, mode) in ["full", "incremental", "full", "incremental", "incremental"].enumerated()
    {
      try fixture.write("vm", number + 1, "\(number)M 1M")
      let stored = try fixture.end(
        of: fixture.job(
          "{\"type\":\"backup\",\"device\":\"vm\",\"params\":{\"target\":\"nas\",\"mode\":\"\(mode)\"}}"
        ))
      let result = stored["result"] as? [String: Any]
      points.append(try #require(result?["backup"] as? String, "\(stored)"))
    }
    let body = #"{"type":"prune","params":{"target":"nas","device":"vm","keep_last":2}}"#
    let plan = try service.post("/v1/jobs?dry_run=true", body).json["plan"] as? [String: Any]
    let items = (plan?["details"] as? [String: Any])?["backups"] as? [[String: Any]] ?? []
    let rules = Dictionary(
      uniqueKeysWithValues: items.map {
        ($0["id"] as? String ?? "", $0["rules"] as? [String] ?? [])
      })
    #expect(
      points.map { rules[$0] } == [[], [], ["needed"], ["keep_last"], ["keep_last"]], "\(items)")
    let done = try fixture.end(of: fixture.job(body))
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect((done["result"] as? [String: Any])?["removed"] as? [String] == [points[1], points[0]])
    let left = try service.get("/v1/targets/nas/backups").json["items"] as? [[String: Any]] ?? []
    #expect(Set(left.compactMap { $0["id"] as? String }) == Set(points[2...]))
    let verified = try fixture.end(
      of: fixture.job(#"{"type":"verify","params":{"target":"nas"}}"#))
    #expect(verified["state"] as? String == "succeeded", "\(verified)")
    // The next one is an increment as before.
    try fixture.write("vm", 9, "30M 1M")
    let next = try fixture.end(
      of: fixture.job(#"{"type":"backup","device":"vm","params":{"target":"nas"}}"#))
    #expect((next["result"] as? [String: Any])?["mode_used"] as? String == "incremental", "\(next)")
  }

  @Test("are refused rules that keep nothing")
  func refusals() throws {
    func code(_ body: String) throws -> String? { try service.post("/v1/jobs", body).code }
    #expect(try code(#"{"type":"prune","device":"vm","params":{}}"#) == "value-impossible")
    #expect(try code(#"{"type":"prune","device":"vm","params":{"daily":0}}"#) == "value-impossible")
    #expect(try code(#"{"type":"prune","params":{"daily":1}}"#) == "invalid-value")
    #expect(
      try code(#"{"type":"prune","device":"vm","params":{"daily":1,"x":2}}"#) == "unknown-field")
    #expect(
      try code(#"{"type":"prune","params":{"target":"none","daily":1}}"#) == "target-not-found")
  }
}
