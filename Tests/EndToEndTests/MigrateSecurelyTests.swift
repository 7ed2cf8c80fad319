import Foundation
import TestSupport
import Testing

@Suite("Disks that are moved to another service over TLS")
struct MigrateSecurelyTests {
  private let here: CopyFixture
  private let there: RunningService
  private let secret: String
  private let port: Substring
  private var service: RunningService { here.service }
  private var tls: String { "\(service.images)/tls" }

  /// The other service has TLS alone, knows a token, and the client `mover` of an authority of its own. The root has
  /// folders `token`, `mover`, and those with something wrong.
  init() throws {
    here = try CopyFixture()
    let made = try Certificates(in: "\(here.service.images)/tls")
    try made.authority("ours")
    try made.authority("other")
    let local = "subjectAltName=DNS:localhost"
    try made.make("server", by: "ours", local)
    try made.make("late", by: "ours", local, isExpired: true)
    try made.make("elsewhere", by: "ours", "subjectAltName=DNS:elsewhere.example")
    try made.make("mover", by: "ours", "extendedKeyUsage=clientAuth")
    try made.make("stale", by: "ours", "extendedKeyUsage=clientAuth", isExpired: true)
    try Tool.shell(
      """
      cd '\(made.folder)' && mkdir own token wrong mistaken mover stale nobody torn
      cp ours.pem own/ca-cert.pem
      for who in token wrong mover stale; do cp ours.pem $who/ca-cert.pem; done
      cp other.pem mistaken/ca-cert.pem
      for who in mover stale; do cp $who.pem $who/client-cert.pem; cp $who-key.pem $who/client-key.pem; done
      printf 'plp_wrong\\n' > wrong/token; printf 'plp_a\\nplp_b\\n' > torn/token; cp ours.pem torn/ca-cert.pem
      """)
    try MigrateSecurelyTests.show("server", of: made.folder)
    there = try RunningService(
      in: "\(here.service.images)/peer",
      ["--http-tls-certificates", "\(made.folder)/own", "--http-tls-client", "mover=admin"],
      httpListen: "127.0.0.1:0")
    port = try there.httpAddress().split(separator: ":").last ?? ""
    secret = try Tool.shell(
      "'\(RunningService.program)' token add mover --scope admin --state-dir '\(there.folder)/state'"
    ).output.trimmingCharacters(in: .newlines)
    try Tool.shell(
      "cd '\(made.folder)' && printf '%s\\n' '\(secret)' > token/token && cp token/token mistaken/token"
    )
    try here.write("vm", 17, "0 4M", "40M 1M")
  }

  /// Gives the other service's folder what a server shows.
  private static func show(_ name: String, of tls: String) throws {
    try Tool.shell(
      "cd '\(tls)' && cp \(name).pem own/server-cert.pem && cp \(name)-key.pem own/server-key.pem")
  }

  private func request(_ credentials: String?, id: String, scheme: String = "https") -> String {
    let shown = credentials.map { ",\"credentials\":\"tls/\($0)\"" } ?? ""
    return
      "{\"type\":\"migrate\",\"device\":\"vm\",\"params\":{\"to\":{\"ploopd\":{\"api\":\"\(scheme)://localhost:\(port)\"\(shown),\"nbd\":\"nbd+unix:///?socket=main:peer/nbd.sock\",\"id\":\"\(id)\",\"directory\":\"\(id)\",\"export\":\"\(id)\",\"access\":{\"addresses\":[\"127.0.0.1\"]}}},\"max_downtime_ms\":60000}}"
  }

  /// - Returns: what the job has failed with, before anything was made there.
  private func failure(
    _ credentials: String?, scheme: String = "https"
  ) throws -> (code: String?, cause: String?, detail: String) {
    let done = try here.end(of: here.job(request(credentials, id: "no", scheme: scheme)))
    #expect(done["state"] as? String == "failed", "\(done)")
    #expect(try there.get("/v1/devices/no").status == 404)
    let error = done["error"] as? [String: Any] ?? [:]
    return (
      error["code"] as? String, error["cause"] as? String, error["detail"] as? String ?? ""
    )
  }

  @Test("with a token, which nobody is told, or with a certificate", arguments: ["token", "mover"])
  func moves(by credentials: String) throws {
    let before = try here.save("vm", "before")
    let id = try here.job(request(credentials, id: "moved"))
    let done = try here.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    let to = ((done["params"] as? [String: Any])?["to"] as? [String: Any])?["ploopd"]
    #expect((to as? [String: Any])?["credentials"] as? String == "main:tls/\(credentials)")
    // The rules of its door are moved along, so it takes nobody who comes by the Unix socket.
    let door = try there.get("/v1/exports/moved").json["access"] as? [String: Any]
    #expect(door?["addresses"] as? [String] == ["127.0.0.1"])
    #expect(try Tool.shell("nbdinfo '\(there.uri("moved"))'", check: false).status != 0)
    let open = "{\"name\":\"open\",\"device\":\"moved\",\"readonly\":true}"
    #expect(try there.post("/v1/exports", open).status == 201)
    try Tool.shell("nbdcopy '\(there.uri("open"))' '\(here.folder.path)/after'")
    try expectSameBytes("\(here.folder.path)/after", before)
    let actor = credentials == "token" ? "token:mover" : "cert:mover"
    #expect(try Tool.shell("cat '\(there.logFile)'").output.contains("actor=\(actor)"))
    let told = try service.get("/v1/jobs/\(id)").text + here.log(of: id).joined()
    #expect(!told.contains(secret))
    // Nor is it written down: not in the state, not in the log.
    let found = try Tool.shell(
      "grep -rlaF '\(secret)' '\(service.folder)/state' '\(service.logFile)' '\(there.logFile)'",
      check: false)
    #expect(found.output.isEmpty, "\(found.output)")
  }

  @Test("or not at all: each refusal says why, and leaves the disk here")
  func refusals() throws {
    let wrong = try failure("wrong")
    #expect(wrong.code == "peer-refused" && wrong.cause == "unauthorized", "\(wrong)")
    #expect(try failure("stale").cause == "unauthorized")
    // Its token is not shown to whom nobody vouches for.
    let mistaken = try failure("mistaken")
    #expect(mistaken.code == "peer-refused", "\(mistaken)")
    #expect(mistaken.detail.contains("certificate issuer is unknown"), "\(mistaken)")
    #expect(try failure(nil).detail.contains("certificate issuer is unknown"))
    for (name, words) in [("late", "expired"), ("elsewhere", "does not match target host name")] {
      try Self.show(name, of: tls)
      there.signal(SIGHUP)
      try Tool.awaitText("reloaded", in: there.logFile, times: name == "late" ? 1 : 2)
      let error = try failure("token")
      #expect(error.code == "peer-refused" && error.detail.contains(words), "\(error)")
    }
    #expect(try service.get("/v1/devices/vm").json["suspended"] as? Bool == false)
  }

  @Test("not with credentials that are none, or that others could read on their way")
  func credentials() throws {
    func refusal(_ credentials: String, scheme: String = "https") throws -> String {
      let reply = try service.post("/v1/jobs", request(credentials, id: "no", scheme: scheme))
      return "\(reply.code ?? "") \(reply.json["detail"] as? String ?? "")"
    }
    #expect(try refusal("token", scheme: "http").contains("https:// alone"))
    #expect(try refusal("nobody").contains("has no ca-cert.pem"))
    #expect(try refusal("torn").contains("one line with a token"))
    let missing = try refusal("missing")
    #expect(missing.hasPrefix("value-impossible"), "\(missing)")
    #expect(try refusal("../../x").hasPrefix("path-outside-root"))
    try Tool.shell("rm '\(tls)/mover/client-key.pem'")
    #expect(try refusal("mover").contains("one of client-cert.pem and client-key.pem only"))
  }
}
