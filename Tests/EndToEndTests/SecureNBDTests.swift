import Foundation
import TestSupport
import Testing

@Suite("NBD over TLS, judged by its clients")
struct SecureNBDTests {
  private let folder: TemporaryFolder
  private let certificates: Certificates
  private var tls: String { certificates.folder }

  /// Two authorities, each with a server `localhost`, and of the first one a client. The service's folder is `own`,
  /// `guest` a client's with a certificate, `anybody` one without, `wrong` one that trusts the other authority. Keys
  /// are `alice`'s and `bob`'s.
  init() throws {
    folder = try TemporaryFolder()
    certificates = try Certificates(in: "\(folder.path)/tls")
    for authority in ["a", "b"] {
      try certificates.authority(authority)
      try certificates.make("server-\(authority)", by: authority, "subjectAltName=DNS:localhost")
    }
    try certificates.make(
      "guest-a", by: "a", "extendedKeyUsage=clientAuth\\nsubjectAltName=DNS:vm1.example")
    try certificates.folder("own", ("server-a", "server"), trusting: "a")
    try certificates.folder("guest", ("guest-a", "client"), trusting: "a")
    try certificates.folder("anybody", nil, trusting: "a")
    try certificates.folder("wrong", nil, trusting: "b")
    try Tool.shell(
      """
      cd '\(tls)' && umask 077 && mkdir alice mallory
      for who in alice bob; do echo "$who:$(openssl rand -hex 32)"; done > keys
      grep alice keys > alice/keys.psk && echo "alice:$(openssl rand -hex 32)" > mallory/keys.psk
      """)
  }

  private func service(_ more: [String] = []) throws -> RunningService {
    let service = try RunningService(
      in: folder.path, ["--nbd-tls-certificates", "\(tls)/own"] + more, nbdListen: "127.0.0.1:0")
    #expect(try service.create("vm", sizeBytes: 16 << 20).status == 201)
    return service
  }

  private func port(_ service: RunningService) throws -> String {
    String(try service.nbdAddress().split(separator: ":").last ?? "")
  }

  /// Over TCP, with certificates of a folder.
  private func uri(_ service: RunningService, _ folder: String) throws -> String {
    "nbds://localhost:\(try port(service))/vm?tls-certificates=\(tls)/\(folder)"
  }

  private func size(_ uri: String) throws -> Tool.Result {
    try Tool.shell("nbdinfo --size '\(uri)'", check: false)
  }

  @Test("libnbd, QEMU and nbdkit read what another of them has written")
  func clients() throws {
    let service = try service()
    let address = "host=localhost,port=\(try port(service)),export=vm"
    let uri = try uri(service, "anybody")
    try Tool.shell(
      """
      cd '\(folder.path)' && head -c 16777216 /dev/urandom > written
      nbdcopy --flush written '\(uri)'
      object="--object tls-creds-x509,id=t,endpoint=client,dir=\(tls)/anybody"
      qemu-img convert $object --image-opts driver=nbd,\(address),tls-creds=t -O raw read
      cmp written read
      qemu-io $object --image-opts driver=nbd,\(address),tls-creds=t -c 'write -f -P 0xab 1M 3M' -c 'read -P 0xab 1M 3M'
      dd if=/dev/zero bs=1M count=3 status=none | tr '\\0' '\\253' | dd of=written bs=1M seek=1 conv=notrunc status=none
      nbdkit -U - nbd hostname=localhost port=\(try port(service)) export=vm tls=require \
        tls-certificates='\(tls)/anybody' --run 'nbdcopy "$uri" again'
      cmp written again
      nbdcopy 'nbd+unix:///vm?socket=\(service.nbdSocket)' plain && cmp written plain
      """, seconds: 300)
    let told = try Tool.shell("nbdinfo --json '\(uri)'").output
    #expect(told.contains("\"TLS\": true"))
    #expect(try service.end() == 0)
  }

  @Test("over TCP nobody is served without TLS, and nobody believes another authority's server")
  func refusedClients() throws {
    let service = try service()
    let plain = try size("nbd://localhost:\(try port(service))/vm")
    #expect(plain.status != 0 && plain.output.contains("TLS"), "\(plain.output)")
    #expect(try size(try uri(service, "wrong")).status != 0)
    let elsewhere = try uri(service, "anybody").replacing("localhost", with: "127.0.0.1")
    #expect(try size(elsewhere).status != 0)
    #expect(try size(try uri(service, "anybody")).output == "16777216\n")
    for (version, isServed) in [
      ("NORMAL:-VERS-ALL:+VERS-TLS1.1", false), ("NORMAL:-VERS-TLS1.3", true),
    ] {
      let result = try Tool.shell(
        """
        qemu-img info --object 'tls-creds-x509,id=t,endpoint=client,dir=\(tls)/anybody,priority=\(version)' \
          --image-opts driver=nbd,host=localhost,port=\(try port(service)),export=vm,tls-creds=t
        """, check: false)
      #expect((result.status == 0) == isServed, "\(version): \(result.output)")
    }
    try Tool.awaitText("no NBD over TLS", in: service.logFile)
    let failed = try service.get("/metrics").text.split(separator: "\n").first {
      $0.hasPrefix("ploopd_nbd_tls_handshakes_total{result=\"failed\"} ")
    }
    let count = failed?.split(separator: " ").last.flatMap { Int($0) }
    #expect((count ?? 0) > 0, "\(failed ?? "not there")")
    let listeners = try service.get("/v1").json["nbd"] as? [[String: String]]
    #expect(listeners?.map { $0["tls"] } == ["allow", "require"])
    #expect(try service.end() == 0)
  }

  @Test(
    "pre-shared keys are known by their names, on either socket, and count from SIGHUP on")
  func keys() throws {
    let service = try RunningService(
      in: folder.path, ["--nbd-tls-psk", "\(tls)/keys", "--nbd-socket-tls", "require"],
      nbdListen: "127.0.0.1:0")
    let uris = try service.create("vm", sizeBytes: 16 << 20).text
    #expect(uris.contains("nbds+unix:///vm") && uris.contains("nbds://127.0.0.1"))
    let port = try port(service)
    func uri(_ user: String, _ folder: String) -> String {
      "nbds+unix://\(user)@/vm?socket=\(service.nbdSocket)&tls-psk-file=\(tls)/\(folder)/keys.psk"
    }
    #expect(try size(uri("alice", "alice")).output == "16777216\n")
    #expect(try size(uri("alice", "mallory")).status != 0)
    try Tool.shell(
      "cd '\(tls)' && mkdir carol && echo carol:00112233445566778899aabbccddeeff > carol/keys.psk")
    #expect(try size(uri("carol", "carol")).status != 0)
    try Tool.shell("cat '\(tls)/carol/keys.psk' >> '\(tls)/keys'")
    service.signal(SIGHUP)
    try Tool.awaitText("reloaded", in: service.logFile)
    #expect(try size(uri("carol", "carol")).output == "16777216\n")
    // Who writes a line without a key lets nobody in by it, and takes nobody's away.
    try Tool.shell("sed -i 's/^carol:.*/carol:/' '\(tls)/keys'")
    service.signal(SIGHUP)
    try Tool.awaitText("certificates stay", in: service.logFile)
    #expect(try size(uri("carol", "carol")).output == "16777216\n")
    try Tool.shell("sed -i '/^carol:/d' '\(tls)/keys'")
    service.signal(SIGHUP)
    try Tool.awaitText("reloaded", in: service.logFile, times: 2)
    #expect(try size(uri("carol", "carol")).status != 0)
    try Tool.shell(
      """
      qemu-io --object tls-creds-psk,id=t,endpoint=client,dir=\(tls)/alice,username=alice \
        --image-opts driver=nbd,host=127.0.0.1,port=\(port),export=vm,tls-creds=t -c 'write -f -P 7 0 1M' -c 'read -P 7 0 1M'
      nbdcopy 'nbds://alice@127.0.0.1:\(port)/vm?tls-psk-file=\(tls)/alice/keys.psk' '\(folder.path)/copy'
      head -c 1048576 '\(folder.path)/copy' | tr -d '\\7' | wc -c | grep -qx 0
      """)
    try startClient(
      folder, uri("alice", "alice"),
      "open(\"in\", \"w\")\nopen(os.mkfifo(\"leave\") or \"leave\").read()\nh.shutdown()")
    let client = try only(service)
    #expect(client["names"] as? [String] == ["psk:alice"])
    #expect((client["tls"] as? String)?.contains("TLS1.3") == true)
    try Tool.shell("echo > '\(folder.path)/leave'")
    #expect(try service.end() == 0)
  }

  /// The one client that there is.
  private func only(_ service: RunningService) throws -> [String: Any] {
    let clients = try service.get("/v1/exports/vm").json["clients"] as? [[String: Any]]
    #expect(clients?.count == 1)
    return try #require(clients?.first)
  }

  @Test("an export is for those whom it names, from where it says, after a restart too")
  func access() throws {
    let service = try service(["--nbd-tls", "allow"])
    func add(_ name: String, _ access: String) throws -> RunningService.Reply {
      try service.post(
        "/v1/exports",
        "{\"name\":\"\(name)\",\"device\":\"vm\",\"readonly\":true,\"access\":\(access)}")
    }
    let own = try add("own", "{\"names\":[\"dns:vm1.example\"]}")
    #expect(own.status == 201)
    let uris = own.json["uris"] as? [String] ?? []
    #expect(uris.count == 2 && uris.allSatisfy { $0.hasPrefix("nbds") })
    #expect(try add("secret", "{\"tls\":true}").status == 201)
    #expect(try add("far", "{\"addresses\":[\"10.0.0.0/8\"]}").status == 201)
    #expect(try add("near", "{\"addresses\":[\"127.0.0.0/8\"]}").status == 201)
    #expect(try add("nobody", "{\"names\":[]}").code == "invalid-value")
    #expect(try add("nowhere", "{\"addresses\":[\"here\"]}").code == "value-impossible")
    func look() throws {
      let port = try port(service)
      func result(_ name: String, _ folder: String?) throws -> Tool.Result {
        let identity = folder.map { "?tls-certificates=\(tls)/\($0)" } ?? ""
        return try size("\(folder == nil ? "nbd" : "nbds")://localhost:\(port)/\(name)\(identity)")
      }
      #expect(try result("own", nil).output.contains("TLS"))
      #expect(try result("own", "anybody").output.contains("policy"))
      #expect(try result("own", "guest").output == "16777216\n")
      #expect(try result("secret", nil).output.contains("TLS"))
      #expect(try result("secret", "anybody").output == "16777216\n")
      #expect(try result("far", "guest").output.contains("policy"))
      #expect(try result("near", nil).output == "16777216\n")
      let list = try Tool.shell("nbdinfo --list --no-content nbd://localhost:\(port)").output
      #expect(list.contains("\"near\"") && list.contains("\"vm\""))
      #expect(!list.contains("own") && !list.contains("secret") && !list.contains("\"far\""))
    }
    try look()
    #expect(try service.end() == 0)
    try Tool.shell("rm '\(service.logFile)'")
    try service.start()
    try look()
    #expect(try service.end() == 0)
    let open = try RunningService(in: folder.path)
    let refused = try open.post(
      "/v1/exports",
      "{\"name\":\"x\",\"device\":\"vm\",\"readonly\":true,\"access\":{\"tls\":true}}")
    #expect(refused.code == "value-impossible")
    #expect(try open.end() == 0)
  }

  @Test("a disk's first export, and the door of its backup, are for no more than its rules say")
  func otherDoors() throws {
    let service = try service(["--nbd-tls", "allow"])
    let own = "{\"names\":[\"dns:vm1.example\"]}"
    func attach(_ access: String) throws -> RunningService.Reply {
      try service.post(
        "/v1/devices",
        "{\"id\":\"d\",\"create\":{\"directory\":\"d\",\"size\":16777216},\"export\":{\"name\":\"d\",\"access\":\(access)}}"
      )
    }
    let wrong = try attach("{\"names\":[\"vm1.example\"]}")
    #expect(wrong.code == "value-impossible")
    #expect(wrong.text.contains("\"/export/access/names/0\""))
    #expect(try attach(own).status == 201)
    let port = try port(service)
    func isServed(_ name: String, _ folder: String) throws -> Bool {
      try size("nbds://localhost:\(port)/\(name)?tls-certificates=\(tls)/\(folder)").status == 0
    }
    #expect(try isServed("d", "guest") && !isServed("d", "anybody"))
    func clone(_ id: String, _ access: String) throws -> RunningService.Reply {
      try service.post(
        "/v1/jobs",
        "{\"type\":\"clone\",\"device\":\"d\",\"params\":{\"to\":{\"id\":\"\(id)\",\"directory\":\"\(id)\",\"export\":\"\(id)\",\"access\":\(access)}}}",
        ["Prefer: wait=60"])
    }
    let vague = try clone("no", "{\"names\":[\"vm1.example\"]}")
    #expect(vague.code == "value-impossible")
    #expect(vague.text.contains("\"/params/to/access/names/0\""))
    let cloned = try clone("c", own)
    #expect(cloned.json["state"] as? String == "succeeded", "\(cloned.text)")
    #expect(try isServed("c", "guest") && !isServed("c", "anybody"))
    #expect(try service.post("/v1/devices/d/push-backup", "{}").status == 201)
    #expect(try isServed("d@backup", "guest") && !isServed("d@backup", "anybody"))
    #expect(try size("nbd://localhost:\(port)/d@backup").status != 0)
    #expect(try service.end() == 0)
  }

  @Test("a service that nobody vouches for clients of takes no rule with names")
  func unmetRules() throws {
    try Tool.shell("rm '\(tls)/own/ca-cert.pem'")
    let service = try service()
    func add(_ access: String) throws -> String? {
      try service.post(
        "/v1/exports",
        "{\"name\":\"x\",\"device\":\"vm\",\"readonly\":true,\"access\":\(access)}"
      ).code
    }
    #expect(try add("{\"names\":[\"dns:vm1.example\"]}") == "value-impossible")
    #expect(try add("{\"tls\":true}") == nil)
    #expect(try service.end() == 0)
  }

  @Test(
    "SIGHUP has new certificates shown, clients inside go on, and what cannot be used changes nothing"
  )
  func reload() throws {
    let service = try service(["--nbd-tls-verify-peer"])
    #expect(try size(try uri(service, "anybody")).status != 0)
    #expect(try size(try uri(service, "guest")).status == 0)
    try startClient(
      folder, try uri(service, "guest"),
      """
      h.pwrite(b"before", 0)
      os.mkfifo("leave")
      open("in", "w")
      open("leave").read()
      assert h.pread(6, 0) == b"before"
      h.shutdown()
      open("done", "w")
      """)
    let client = try only(service)
    #expect(client["names"] as? [String] == ["dns:vm1.example"])
    #expect(client["headers"] as? String == "structured")
    #expect(client["contexts"] as? [String] == [])
    try certificates.folder("own", ("server-b", "server"), trusting: "b")
    service.signal(SIGHUP)
    try Tool.awaitText("reloaded", in: service.logFile)
    #expect(try size(try uri(service, "guest")).status != 0)
    try Tool.shell("cp '\(tls)/server-a.pem' '\(tls)/own/server-cert.pem'")
    service.signal(SIGHUP)
    try Tool.awaitText("certificates stay", in: service.logFile)
    try certificates.folder("own", ("server-a", "server"), trusting: "a")
    service.signal(SIGHUP)
    try Tool.awaitText("reloaded", in: service.logFile, times: 2)
    #expect(try size(try uri(service, "guest")).status == 0)
    try Tool.shell(
      "cd '\(folder.path)' && echo > leave && until test -e done; do sleep 0.02; done", seconds: 120
    )
    #expect(try service.end() == 0)
  }

  @Test("a thousand handshakes, good ones and bad ones, leave no socket and no memory behind")
  func manyHandshakes() throws {
    let service = try service()
    func shakeHands(_ count: Int) throws {
      try Tool.python(
        """
        import socket, ssl, struct, sys
        good = ssl.create_default_context(cafile='\(tls)/a.pem')
        bad = ssl.create_default_context(cafile='\(tls)/b.pem')
        for i in range(\(count)):
            s = socket.create_connection(('127.0.0.1', \(try port(service))), 120)
            s.recv(18, socket.MSG_WAITALL)
            s.sendall(struct.pack('>I', 3) + b'IHAVEOPT' + struct.pack('>II', 5, 0))
            s.recv(20, socket.MSG_WAITALL)
            try:
                t = (bad if i % 4 == 1 else good).wrap_socket(s, server_hostname='localhost')
                assert i % 4 != 1
                if i % 4 == 2: t.sendall(b'IHAVEOPT' + struct.pack('>II', 7, 10) + b'\\0\\0\\0\\4vm')
                t.close()
            except ssl.SSLError: assert i % 4 == 1
        """, seconds: 300)
    }
    func facts() throws -> (files: Int, kilobytes: Int) {
      let words = try Tool.shell(
        "ls /proc/\(service.process)/fd | wc -l; awk '/RssAnon/ {print $2}' /proc/\(service.process)/status"
      ).output.split(separator: "\n").compactMap { Int($0) }
      return (words.first ?? 0, words.last ?? 0)
    }
    try shakeHands(200)
    let before = try facts()
    try shakeHands(1000)
    let deadline = Date().addingTimeInterval(120)
    while try facts().files > before.files, Date() < deadline { try Tool.shell("sleep 0.05") }
    let after = try facts()
    #expect(after.files <= before.files)
    #expect(after.kilobytes < before.kilobytes + 8192, "\(before.kilobytes) \(after.kilobytes)")
    #expect(try size(try uri(service, "anybody")).status == 0)
    #expect(try service.end() == 0)
  }

  @Test("what cannot be served is refused at the start, with the reason")
  func refusedSettings() throws {
    func start(_ options: String) throws -> Tool.Result {
      try Tool.shell(
        """
        cd '\(folder.path)' && mkdir -p images && timeout 60 '\(RunningService.program)' serve --state-dir s \
          --root main=images --http-socket none --http-listen none --nbd-socket none \(options)
        """, check: false)
    }
    try Tool.shell(
      """
      cd '\(tls)' && cp -r own open && chmod o+r open/server-key.pem && cp keys loud && chmod 644 loud
      cp -r own alone && rm alone/ca-cert.pem && echo nonsense > nonsense && cp -r own revoked
      cp nonsense revoked/ca-crl.pem && umask 077 && echo alice: > empty && mkfifo fifo
      """)
    let some = "--nbd-listen 127.0.0.1:0"
    let cases = [
      ("--nbd-listen 0.0.0.0:0", 64, "TLS is compulsory"),
      ("--nbd-listen 0.0.0.0:0 --nbd-tls allow --nbd-tls-psk tls/keys", 64, "TLS is compulsory"),
      ("\(some) --nbd-tls require", 64, "needs nbd-tls-certificates"),
      ("\(some) --nbd-socket-tls allow", 64, "needs nbd-tls-certificates"),
      ("\(some) --nbd-tls sometimes --nbd-tls-psk tls/keys", 64, "none of off"),
      ("\(some) --nbd-tls-verify-peer", 64, "there is no nbd-tls-certificates"),
      (
        "\(some) --nbd-tls-verify-peer --nbd-tls allow --nbd-tls-psk tls/keys", 64,
        "is not verified"
      ),
      ("--nbd-listen 0.0.0.0:0 --nbd-tls-certificates tls/own", 64, "whoever reaches it"),
      (
        "--nbd-listen 0.0.0.0:0 --nbd-tls-certificates tls/own --nbd-tls-psk tls/keys", 64,
        "whoever reaches it"
      ),
      ("\(some) --nbd-tls-psk tls/empty", 1, "line 1"),
      ("\(some) --nbd-tls-psk tls/fifo", 1, "no regular file"),
      ("\(some) --nbd-tls-certificates tls", 1, "cannot be read"),
      ("\(some) --nbd-tls-certificates tls/open", 1, "open to everybody"),
      ("\(some) --nbd-tls-psk tls/loud", 1, "open to everybody"),
      ("\(some) --nbd-tls-psk tls/missing", 1, "cannot be read"),
      ("\(some) --nbd-tls-certificates tls/revoked", 1, "cannot be used"),
      ("\(some) --nbd-tls-certificates tls/alone --nbd-tls-verify-peer", 1, "no ca-cert.pem"),
    ]
    for (options, status, words) in cases {
      let result = try start(options)
      #expect(
        result.status == Int32(status) && result.output.contains(words),
        "\(options): \(result.output)")
    }
  }
}
