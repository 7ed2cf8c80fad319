import Foundation
import TestSupport
import Testing

@Suite("A running service examined by its contract")
struct ContractExaminationTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  @Test("openapi-spec-validator finds the contract right")
  func validity() throws {
    let validator = PythonTools.path("openapi-spec-validator")
    #expect(
      try Tool.shell("'\(validator)' '\(PythonTools.root)/openapi.yaml'").output.contains("OK"))
  }

  /// Something of each kind, so that requests find it.
  private func seed(_ service: RunningService) throws {
    for id in ["vm1", "vm2"] { #expect(try service.create(id, sizeBytes: 16 << 20).status == 201) }
    let requests = [
      ("/v1/devices/vm1/snapshots", #"{"uuid":"6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01"}"#),
      ("/v1/targets", #"{"name":"nas","type":"directory","path":"main:backups"}"#),
      ("/v1/devices/vm1/checkpoints", #"{"name":"cp-1"}"#),
      ("/v1/devices/vm2/tracking", "{}"),
    ]
    for (path, body) in requests {
      let reply = try service.post(path, body)
      #expect(reply.status == 201, "\(path): \(reply.text)")
    }
    let backup = try service.post(
      "/v1/jobs", #"{"type":"backup","device":"vm1","params":{"target":"nas"}}"#,
      ["Prefer: wait=60"])
    #expect(backup.json["state"] as? String == "succeeded", "\(backup.text)")
  }

  @Test("schemathesis finds nothing in any phase, by any check", .timeLimit(.minutes(60)))
  func examination() throws {
    try Tool.shell("mkdir -p '\(folder.path)/images/backups'")
    let service = try RunningService(
      in: folder.path, httpListen: "127.0.0.1:0", logLevel: "notice")
    try seed(service)
    let token = try Tool.shell(
      "'\(RunningService.program)' token add fuzz --scope admin,data --state-dir '\(folder.path)/state'"
    ).output.trimmingCharacters(in: .newlines)
    let environment = ProcessInfo.processInfo.environment
    let seed = environment["PLOOPD_SEED"] ?? "1"
    let examples = environment["PLOOPD_EXAMPLES"] ?? "3"
    let address = "http://\(try service.httpAddress())"
    let report = "\(folder.path)/report"
    let result = try Tool.shell(
      """
      cd '\(PythonTools.root)' && '\(PythonTools.path("schemathesis"))' run '\(address)/openapi.json' \
        --url '\(address)' -H 'Authorization: Bearer \(token)' \
        --max-examples \(examples) --seed \(seed) --no-color >'\(report)' 2>&1
      """, check: false, seconds: 3_000)
    let text = try Tool.shell("cat '\(report)'").output
    // What was found, and not the thousand lines around it.
    #expect(result.status == 0, "seed \(seed):\n\(text.suffix(20_000))")
    #expect(try service.get("/healthz").status == 200)
    #expect(try service.end() == 0)
  }
}
