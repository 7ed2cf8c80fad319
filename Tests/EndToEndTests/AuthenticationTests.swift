import Foundation
import TestSupport
import Testing

@Suite("Who may use a running service")
struct AuthenticationTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// `ploopd token …`, on the state folder of the test's service.
  private func token(_ arguments: String, check: Bool = true) throws -> String {
    try Tool.shell(
      "'\(RunningService.program)' token \(arguments) --state-dir '\(folder.path)/state'",
      check: check
    ).output.trimmingCharacters(in: .newlines)
  }

  /// - Returns: status and body, or what else curl prints.
  private func curl(_ address: String, _ path: String, _ options: String = "") throws -> String {
    try Tool.shell(
      "curl -sS --max-time 60 -w ' %{http_code}' \(options) 'http://\(address)\(path)'"
    ).output
  }

  private func status(_ address: String, _ path: String, _ options: String = "") throws -> String {
    String(try curl(address, path, options).suffix(3))
  }

  @Test("Tokens open TCP while the service runs, for what they are for, until they are revoked")
  func tokens() throws {
    let service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    let address = try service.httpAddress()
    for id in ["vm1", "other"] {
      #expect(try service.create(id, sizeBytes: 16 << 20).status == 201)
    }
    let open = try curl(address, "/v1", "-D '\(folder.path)/head'")
    #expect(open.hasSuffix("401") && open.contains("\"unauthorized\""))
    let head = try Tool.shell("cat '\(folder.path)/head'").output.lowercased()
    #expect(head.contains("www-authenticate: bearer"), "\(head)")
    #expect(try status(address, "/healthz") == "200")

    let reader = try token("add reader --scope read")
    let some = try token("add some --scope operate,data --device 'vm*' --expires 1h")
    let elsewhere = try token("add elsewhere --scope admin --from 192.0.2.0/24")
    #expect(reader.hasPrefix("plp_") && reader.count == 47)
    func bearer(_ token: String) -> String { "-H 'Authorization: Bearer \(token)'" }
    #expect(try status(address, "/v1/devices/other", bearer(reader)) == "200")
    let refused = try curl(address, "/v1/devices/vm1", "-X DELETE \(bearer(reader))")
    #expect(refused.hasSuffix("403") && refused.contains("\"scope\":\"admin\""))
    #expect(try status(address, "/v1/devices/vm1", bearer(some)) == "200")
    #expect(try status(address, "/v1/devices/other", bearer(some)) == "404")
    #expect(try curl(address, "/v1/devices", bearer(some)).contains("other") == false)
    #expect(try status(address, "/v1/images", bearer(some)) == "403")
    #expect(try status(address, "/v1", bearer(elsewhere)) == "401")

    // What a token does is done in its name.
    let job = try curl(
      address, "/v1/jobs",
      "-H 'Content-Type: application/json' -H 'Prefer: wait=60' -d '{\"type\":\"hash\",\"device\":\"vm1\"}' \(bearer(some))"
    )
    #expect(job.contains("\"actor\":\"token:some\"") && job.contains("succeeded"), "\(job)")
    let suspended = try curl(
      address, "/v1/devices/vm1",
      "-X PATCH -H 'Content-Type: application/json' -d '{\"suspended\":true}' \(bearer(some))")
    #expect(suspended.contains("\"holder\":\"token:some\""), "\(suspended)")
    let events = try service.get("/v1/events?limit=1000").json["items"] as? [[String: Any]] ?? []
    func actors(_ type: String) -> Set<String> {
      Set(events.filter { $0["type"] as? String == type }.map { $0["actor"] as? String ?? "null" })
    }
    #expect(actors("device.created") == ["uid:\(getuid())"])
    #expect(actors("job.created") == ["token:some"] && actors("job.state") == ["token:some"])
    let log = try Tool.shell("cat '\(service.logFile)'").output
    #expect(log.contains("actor=token:some") && log.contains("actor=uid:\(getuid())"))
    #expect(!log.contains(reader) && !log.contains(some))

    let list = try token("list")
    #expect(
      list.split(separator: "\n").map { $0.split(separator: " ").first } == [
        "reader", "some", "elsewhere",
      ])
    #expect(!list.contains(reader) && list.contains("devices=vm*"))
    #expect(try token("add reader --scope read", check: false).contains("there is a token"))
    _ = try token("revoke reader")
    #expect(try status(address, "/v1", bearer(reader)) == "401")
    #expect(try status(address, "/v1", bearer(some)) == "200")
    #expect(try token("revoke reader", check: false).contains("no token"))
    #expect(try service.end() == 0)
  }

  @Test("A stream of events ends once its token is revoked, and tells nothing more")
  func stream() throws {
    let service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    let secret = try token("add reader --scope read")
    let file = "\(folder.path)/events"
    let stream = try ChildProcess(
      [
        "/usr/bin/curl", "-sSN", "-H", "Authorization: Bearer \(secret)", "-H",
        "Accept: text/event-stream", "http://\(try service.httpAddress())/v1/events",
      ], output: file, errors: file)
    try Tool.awaitText("id:", in: file)
    #expect(try service.create("vm1", sizeBytes: 16 << 20).status == 201)
    try Tool.awaitText("device.created", in: file)
    _ = try token("revoke reader")
    #expect(try service.create("vm2", sizeBytes: 16 << 20).status == 201)
    #expect(try stream.wait(seconds: 120) == 0)
    let told = try Tool.shell("cat '\(file)'").output
    #expect(told.contains("vm1") && !told.contains("vm2"))
    #expect(try service.end() == 0)
  }

  @Test("A download ends once its token is revoked")
  func download() throws {
    let service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    // At a megabyte a second nobody sees its end.
    #expect(try service.create("vm", sizeBytes: 64 << 30).status == 201)
    let secret = try token("add reader --scope data")
    let reader = try ChildProcess(
      [
        "/usr/bin/curl", "-sSN", "--limit-rate", "1M", "-H", "Authorization: Bearer \(secret)",
        "http://\(try service.httpAddress())/v1/exports/vm/data",
      ], output: "\(folder.path)/part", errors: "\(folder.path)/errors")
    try Tool.shell("until [ -s '\(folder.path)/part' ]; do sleep 0.02; done", seconds: 120)
    _ = try token("revoke reader")
    // CURLE_PARTIAL_FILE: not all of it has come.
    #expect(try reader.wait(seconds: 120) == 18)
    #expect(try service.end() == 0)
  }

  @Test("Tokens survive the service, and its database too")
  func survival() throws {
    var service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    let secret = try token("add ops --scope read")
    service.kill()
    try Tool.shell("cd '\(folder.path)/state' && rm -f ploopd.db*")
    service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    let header = "-H 'Authorization: Bearer \(secret)'"
    #expect(try status(try service.httpAddress(), "/v1", header) == "200")
    #expect(try service.end() == 0)
  }

  @Test("Wrong tokens are throttled, and right ones from the same address are not")
  func throttle() throws {
    let service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    let address = try service.httpAddress()
    let good = try token("add ops --scope read")
    let wrong = "-H 'Authorization: Bearer plp_\(String(repeating: "x", count: 43))'"
    let answers = try curl(address, "/v1?[1-30]", "-o /dev/null \(wrong)").split(separator: " ")
    #expect(answers.first == "401" && answers.last == "429")
    let head = try curl(address, "/v1", "-D - \(wrong)")
    #expect(head.lowercased().contains("retry-after: ") && head.contains("too-many-failures"))
    #expect(try status(address, "/v1", "-H 'Authorization: Bearer \(good)'") == "200")
    #expect(try service.end() == 0)
  }

  @Test("Without authentication a loopback address serves whoever can reach it")
  func open() throws {
    let service = try RunningService(
      in: folder.path, ["--http-auth", "none"], httpListen: "127.0.0.1:0")
    #expect(try status(try service.httpAddress(), "/v1/devices") == "200")
    #expect(try service.end() == 0)
  }

  @Test("By the Unix socket a user may do what his groups say")
  func users() throws {
    let service = try RunningService(
      in: folder.path, ["--http-admin-group", "games", "--http-read-group", "news"])
    try Tool.shell("chmod 755 '\(folder.path)'")
    func ask(_ group: String, _ method: String) throws -> String {
      try Tool.shell(
        """
        setpriv --reuid nobody --regid nogroup --groups \(group) \
          curl -sS --max-time 60 -w ' %{http_code}' -X \(method) --unix-socket '\(service.httpSocket)' \
          http://localhost/v1/devices/none
        """
      ).output
    }
    #expect(try ask("mail", "GET").contains("\"peer-not-allowed\""))
    #expect(try ask("mail,news", "GET").contains("\"device-not-found\""))
    #expect(try ask("mail,news", "DELETE").contains("\"scope-missing\""))
    #expect(try ask("mail,games", "DELETE").contains("\"device-not-found\""))
    #expect(try ask("mail", "OPTIONS").hasSuffix("204"))
    // Groups are looked for again.
    service.signal(SIGHUP)
    try Tool.awaitText("reloaded", in: service.logFile)
    #expect(try ask("games", "DELETE").contains("\"device-not-found\""))
    #expect(try service.end() == 0)
  }
}
