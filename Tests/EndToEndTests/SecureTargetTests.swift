import Foundation
import TestSupport
import Testing

@Suite("An NBD server that speaks with TLS only, as a target")
struct SecureTargetTests {
  private let folder: TemporaryFolder
  private let service: RunningService
  private let server: ChildProcess
  private let uri: String

  /// Gives a server a socket that listens at a free port, and writes down which.
  private static let listening = """
    import os, socket, sys
    s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(16)
    with open(sys.argv[1] + ".tmp", "w") as f: f.write(str(s.getsockname()[1]))
    os.rename(sys.argv[1] + ".tmp", sys.argv[1])
    os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
    os.environ["LISTEN_PID"] = str(os.getpid()); os.environ["LISTEN_FDS"] = "1"
    os.execv(sys.argv[2], sys.argv[2:])
    """

  /// An authority, a server `localhost`, a client, and an authority that has signed nothing.
  init() throws {
    folder = try TemporaryFolder()
    let images = "\(folder.path)/images"
    try Tool.shell(
      """
      mkdir -p '\(images)/tls/server' '\(images)/tls/client' '\(images)/tls/other'
      cd '\(images)/tls'
      exec 2> make.log
      new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" "${@:2}"; }
      new authority -x509 -days 2 -keyout ca-key.pem -out server/ca-cert.pem
      new another -x509 -days 2 -keyout other-key.pem -out other/ca-cert.pem
      cp server/ca-cert.pem client
      echo subjectAltName=DNS:localhost > names
      for who in server client; do
        new localhost -keyout $who/$who-key.pem -out $who.csr
        openssl x509 -req -in $who.csr -CA server/ca-cert.pem -CAkey ca-key.pem -CAcreateserial \\
          -days 2 -extfile names -out $who/$who-cert.pem
      done
      cp client/client-*.pem other
      """)
    server = try ChildProcess(
      [
        "/usr/bin/python3", "-c", Self.listening, "\(folder.path)/port", "/usr/bin/nbdkit", "-f",
        "--tls=require", "--tls-certificates=\(images)/tls/server", "--tls-verify-peer", "memory",
        "16M",
      ], output: "\(folder.path)/nbdkit.log", errors: "\(folder.path)/nbdkit.log")
    let port = try Tool.shell(
      "cd '\(folder.path)'; until [ -s port ]; do read -t 0.05 < <(:) || true; done; cat port",
      seconds: 120
    ).output
    uri = "nbds://localhost:\(port)"
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 8 << 20, clusterBytes: 1 << 16).status == 201)
    try Tool.shell("qemu-io -f raw -c 'write -P 7 1M 1M' -c flush '\(service.uri("vm"))'")
  }

  private func add(_ name: String, _ more: String) throws -> RunningService.Reply {
    try service.post(
      "/v1/targets", "{\"name\":\"\(name)\",\"type\":\"nbd\",\"uri\":\"\(uri)\"\(more)}")
  }

  private func job(_ type: String, _ parameters: String) throws -> String {
    let reply = try service.post(
      "/v1/jobs",
      "{\"type\":\"\(type)\",\"params\":{\(parameters)}}".replacingOccurrences(
        of: "\"backup\",\"params\"", with: "\"backup\",\"device\":\"vm\",\"params\""))
    return try #require(reply.json["id"] as? String, "\(reply.text)")
  }

  private func wait(_ id: String, _ isMet: ([String: Any]) -> Bool) throws -> [String: Any] {
    while true {
      let job = try service.get("/v1/jobs/\(id)").json
      if isMet(job) || job["finished_at"] is String { return job }
    }
  }

  @Test("is backed up to and restored from with certificates, and waited for where they are wrong")
  func certificates() throws {
    let made = try add("far", #","tls":{"certificates":"tls/client"}"#)
    #expect(made.status == 201, "\(made.text)")
    let tls = try service.get("/v1/targets/far").json["tls"] as? [String: Any]
    #expect(tls?["certificates"] as? String == "main:tls/client" && tls?["verify"] as? Bool == true)
    let backup = try job("backup", #""target":"far""#)
    let done = try wait(backup) { $0["finished_at"] is String }
    #expect(done["state"] as? String == "succeeded", "\(done)")
    let restore = try job(
      "restore",
      "\"target\":\"far\",\"backup\":\"\(backup)\",\"to\":{\"id\":\"r\",\"directory\":\"r\",\"export\":\"r\"}"
    )
    #expect(try wait(restore) { $0["finished_at"] is String }["state"] as? String == "succeeded")
    try Tool.shell(
      "qemu-img compare -f raw -F raw '\(service.uri("r"))' '\(service.uri("vm"))'", seconds: 120)
    #expect(try service.delete("/v1/targets/far?backups=keep").status == 204)
    // An authority that has not signed the server's certificate; none at all.
    for wrong in [#","tls":{"certificates":"tls/other"}"#, ""] {
      #expect(try add("far", wrong).status == 201)
      let id = try job("backup", #""target":"far""#)
      let waiting = try wait(id) { !($0["waiting_for"] as? [Any] ?? []).isEmpty }
      #expect(
        (waiting["waiting_for"] as? [[String: Any]])?.first?["kind"] as? String == "target",
        "\(waiting)")
      _ = try service.post("/v1/jobs/\(id)/cancel", "{}")
      #expect(try wait(id) { $0["finished_at"] is String }["state"] as? String == "cancelled")
      #expect(try service.delete("/v1/targets/far?backups=keep").status == 204)
    }
    // The authority's name is not asked for where nobody wants it.
    #expect(
      try add("far", #","tls":{"certificates":"tls/other","verify":false}"#).status == 201)
    let trusting = try wait(job("backup", #""target":"far""#)) { $0["finished_at"] is String }
    #expect(trusting["state"] as? String == "succeeded", "\(trusting)")
  }

  @Test("is refused where its socket or its certificates lie beneath no root")
  func outside() throws {
    func code(_ uri: String, _ more: String = "") throws -> String? {
      try service.post(
        "/v1/targets", "{\"name\":\"far\",\"type\":\"nbd\",\"uri\":\"\(uri)\"\(more)}"
      ).code
    }
    #expect(try code("nbd+unix:///?socket=/run/nbd.sock") == "path-outside-root")
    #expect(
      try code("nbd+unix:///?socket=\(folder.path)/images/../api.sock") == "path-outside-root")
    #expect(try code("nbd+unix:///?socket=%2Frun%2Fnbd.sock") == "path-outside-root")
    #expect(try code("nbd+unix:///") == "value-impossible")
    #expect(try code("nbd+unix:///?socket=main:a&socket=main:b") == "value-impossible")
    #expect(
      try code("nbd://localhost", #","tls":{"certificates":"tls/client"}"#) == "value-impossible")
    #expect(try code(uri, #","tls":{"certificates":"../x"}"#) == "path-outside-root")
    #expect(try code(uri, #","tls":{"x":1}"#) == "unknown-field")
    #expect(try code("nbd+unix:///?socket=main:nbdkit") == nil)
    #expect(try service.delete("/v1/targets/far").status == 204)
    #expect(try code("nbd+unix:///?socket=\(folder.path)/images/nbdkit") == nil)
  }
}
