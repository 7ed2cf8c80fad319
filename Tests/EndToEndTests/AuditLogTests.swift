import Foundation
import TestSupport
import Testing

@Suite("The audit log of a running service")
struct AuditLogTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func verify(_ arguments: String) throws -> Tool.Result {
    try Tool.shell(
      "cd '\(folder.path)/state' && '\(RunningService.program)' audit verify \(arguments)",
      check: false)
  }

  @Test("Who did what is in it through rotation, kill -9 and restarts, and changes show")
  func life() throws {
    let service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    #expect(try service.create("vm1", sizeBytes: 16 << 20).status == 201)
    let secret = try Tool.shell(
      "'\(RunningService.program)' token add t --scope read --state-dir '\(folder.path)/state'"
    ).output.trimmingCharacters(in: .newlines)
    try Tool.shell(
      """
      curl -sS --max-time 60 -o /dev/null -X DELETE -H 'Authorization: Bearer \(secret)' \
        'http://\(try service.httpAddress())/v1/devices/vm1'
      """)
    try Tool.shell("cd '\(folder.path)/state' && mv audit.jsonl audit.jsonl.1")
    #expect(try service.patch("/v1/devices/vm1", "{\"labels\":{\"a\":\"b\"}}").status == 200)
    service.kill()
    try service.start()
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    #expect(try service.end() == 0)
    let good = try verify("audit.jsonl.1 audit.jsonl")
    #expect(good.status == 0 && good.output.contains("5 lines (1 to 5)"), "\(good.output)")
    let head = try #require(
      good.output.split(separator: "\n").last?.split(separator: " ").last.map(String.init))
    #expect(try verify("--head \(head) audit.jsonl").status == 0)
    let piped = try Tool.shell(
      "cd '\(folder.path)/state' && cat audit.jsonl.1 | '\(RunningService.program)' audit verify - audit.jsonl"
    )
    #expect(piped.status == 0)
    let text = try Tool.shell("cd '\(folder.path)/state' && cat audit.jsonl.1 audit.jsonl").output
    let actors = text.components(separatedBy: "\"actor\":\"").dropFirst().map {
      $0.prefix { $0 != "\"" }
    }
    let own = "uid:\(getuid())"
    #expect(actors == [own[...], "token:t", own[...], own[...]])
    #expect(text.contains("scope-missing") && !text.contains(secret.dropFirst(4)))
    #expect(try Tool.shell("stat -c %a '\(folder.path)/state/audit.jsonl'").output == "640\n")

    #expect(try verify("audit.jsonl audit.jsonl.1").status == 1)
    #expect(try verify("audit.jsonl.1 missing").status == 1)
    try Tool.shell(
      "cd '\(folder.path)/state' && sed -i '1s/token:t/token:u/;1s/scope-m/scope-M/' audit.jsonl.1 && sed -i 2s/token:t/token:u/ audit.jsonl.1"
    )
    let bad = try verify("audit.jsonl.1 audit.jsonl")
    #expect(bad.status == 1 && bad.output.contains("was changed"), "\(bad.output)")
    try Tool.shell("cd '\(folder.path)/state' && sed -i '$d' audit.jsonl")
    #expect(try verify("audit.jsonl").status == 0)
    let short = try verify("--head \(head) audit.jsonl")
    #expect(short.status == 1 && short.output.contains("cut off"), "\(short.output)")
  }

  @Test("A log that cannot be written keeps nobody from anything, and can be seen")
  func fullDisk() throws {
    try Tool.shell("ln -s /dev/full '\(folder.path)/audit'")
    let service = try RunningService(in: folder.path, ["--audit-log", "\(folder.path)/audit"])
    #expect(try service.get("/healthz").json["status"] as? String == "ok")
    #expect(try service.create("vm1", sizeBytes: 16 << 20).status == 201)
    #expect(try service.get("/healthz").json["status"] as? String == "degraded")
    #expect(try service.get("/metrics").text.contains("\nploopd_audit_lost_total 1\n"))
    try Tool.shell("rm '\(folder.path)/audit'")
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    #expect(try service.get("/healthz").json["status"] as? String == "ok")
    let log = try Tool.shell("cat '\(service.logFile)'").output
    #expect(log.contains("cannot be written") && log.contains("is written again"))
    #expect(try verify("../audit").output.contains("1 lines could not be written"))
    #expect(try service.end() == 0)
  }
}
