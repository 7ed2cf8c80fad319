import Foundation
import TestSupport
import Testing

@Suite("The API over TLS")
struct SecureInterfaceTests {
  private let folder: TemporaryFolder
  private var tls: String { "\(folder.path)/tls" }

  /// Two authorities, each with a server `localhost` and `ploop.example`, and clients `ops` and
  /// `tenant.example` (by its alternative name). The service has those of the first.
  init() throws {
    folder = try TemporaryFolder()
    try Tool.shell(
      """
      mkdir -p '\(folder.path)/tls/own' && cd '\(folder.path)/tls' && exec 2> make.log
      new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" "${@:2}"; }
      sign() { openssl x509 -req -in $1.csr -CA $2-ca.pem -CAkey $2-ca-key.pem -CAcreateserial -days 2 \\
        -extfile $3 -out $1.pem; }
      echo 'subjectAltName=DNS:localhost,DNS:ploop.example,IP:127.0.0.1' > server.ext
      printf 'extendedKeyUsage=clientAuth\\nsubjectAltName=DNS:tenant.example\\n' > tenant.ext
      echo 'extendedKeyUsage=clientAuth' > ops.ext
      for ca in a b; do
        new "authority $ca" -x509 -days 2 -keyout $ca-ca-key.pem -out $ca-ca.pem
        for who in server ops tenant; do
          new $who -keyout $ca-$who-key.pem -out $ca-$who.csr && sign $ca-$who $ca $who.ext
        done
      done
      """)
    try use("a")
  }

  /// Gives the service's folder what belongs to an authority.
  private func use(_ authority: String) throws {
    try Tool.shell(
      """
      cd '\(tls)' && cp \(authority)-server.pem own/server-cert.pem
      cp \(authority)-server-key.pem own/server-key.pem && cp \(authority)-ca.pem own/ca-cert.pem
      """)
  }

  private func service(_ more: [String] = [], listen: String = "127.0.0.1:0") throws
    -> RunningService
  {
    try RunningService(
      in: folder.path,
      [
        "--http-tls-certificates", "\(tls)/own", "--http-tls-client", "ops=admin,data",
        "--http-tls-client", "tenant.example=read@vm*",
      ] + more, httpListen: listen)
  }

  /// - Returns: the body and the status; what curl says where there is none.
  private func curl(
    _ service: RunningService, _ path: String, as client: String? = nil, _ more: String = "",
    trusting authority: String = "a", host: String = "localhost"
  ) throws -> String {
    let port = try service.httpAddress().split(separator: ":").last ?? ""
    let identity = client.map { "--cert '\(tls)/\($0).pem' --key '\(tls)/\($0)-key.pem'" } ?? ""
    return try Tool.shell(
      """
      curl -sS --max-time 60 -w ' %{http_code}' --cacert '\(tls)/\(authority)-ca.pem' \(identity) \(more) \
        --resolve \(host):\(port):127.0.0.1 'https://\(host):\(port)\(path)'
      """, check: false
    ).output
  }

  @Test("Clients are known by their certificates, whose names say what they may do")
  func certificates() throws {
    let service = try service()
    #expect(try service.create("vm1", sizeBytes: 16 << 20).status == 201)
    #expect(try service.create("other", sizeBytes: 16 << 20).status == 201)
    #expect(try curl(service, "/healthz").hasSuffix(" 200"))
    #expect(try curl(service, "/v1").contains("neither token nor certificate"))
    #expect(try curl(service, "/v1/devices/vm1", as: "a-ops").hasSuffix(" 200"))
    #expect(try curl(service, "/v1/devices/vm1", as: "a-tenant").hasSuffix(" 200"))
    #expect(try curl(service, "/v1/devices/other", as: "a-tenant").hasSuffix(" 404"))
    #expect(try curl(service, "/v1/devices/vm1", as: "a-tenant", "-X DELETE").hasSuffix(" 403"))
    #expect(try curl(service, "/v1", as: "b-ops").contains("vouches"))
    // A server's certificate is none for a client.
    #expect(try curl(service, "/v1", as: "a-server").contains("401") == true)
    let secret = try Tool.shell(
      "'\(RunningService.program)' token add reader --scope read --state-dir '\(folder.path)/state'"
    ).output.trimmingCharacters(in: .newlines)
    let bearer = "-H 'Authorization: Bearer \(secret)'"
    #expect(try curl(service, "/v1/devices/other", bearer).hasSuffix(" 200"))
    #expect(try curl(service, "/v1/devices/vm1", as: "a-ops", "-X DELETE").hasSuffix(" 204"))
    let log = try Tool.shell("cat '\(service.logFile)'").output
    #expect(log.contains("actor=cert:ops") && log.contains("actor=cert:tenant.example"))
    #expect(try service.end() == 0)
  }

  @Test("Nobody is served without TLS, or by an old version of it")
  func versions() throws {
    let service = try service()
    let address = try service.httpAddress()
    let plain = try Tool.shell("curl -sS --max-time 60 'http://\(address)/healthz'", check: false)
    #expect(plain.status != 0)
    for (version, isServed) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
      let output = try Tool.shell(
        "echo | timeout 60 openssl s_client -connect \(address) \(version) -brief -cipher DEFAULT@SECLEVEL=0 -CAfile '\(tls)/a-ca.pem' 2>&1",
        check: false
      ).output
      #expect(output.contains("CONNECTION ESTABLISHED") == isServed, "\(version)")
    }
    #expect(try service.end() == 0)
  }

  @Test("SIGHUP takes new certificates; connections that are there go on, bad ones change nothing")
  func reload() throws {
    let service = try service()
    let port = try service.httpAddress().split(separator: ":").last ?? ""
    let stream = try ChildProcess(
      [
        "/usr/bin/curl", "-sSN", "--cacert", "\(tls)/a-ca.pem", "--cert", "\(tls)/a-ops.pem",
        "--key",
        "\(tls)/a-ops-key.pem", "-H", "Accept: text/event-stream",
        "https://localhost:\(port)/v1/events",
      ], output: "\(folder.path)/events", errors: "\(folder.path)/errors")
    try Tool.awaitText("id:", in: "\(folder.path)/events")
    try use("b")
    service.signal(SIGHUP)
    try Tool.awaitText("reloaded", in: service.logFile)
    #expect(try curl(service, "/v1", as: "b-ops", trusting: "b").hasSuffix(" 200"))
    #expect(try curl(service, "/healthz").hasSuffix(" 000"))
    #expect(try curl(service, "/v1", as: "a-ops", trusting: "b").hasSuffix(" 401"))
    #expect(try service.create("vm1", sizeBytes: 16 << 20).status == 201)
    try Tool.awaitText("device.created", in: "\(folder.path)/events")
    try Tool.shell("cp '\(tls)/a-server-key.pem' '\(tls)/own/server-key.pem'")
    service.signal(SIGHUP)
    try Tool.awaitText("certificates stay", in: service.logFile)
    #expect(try curl(service, "/v1", as: "b-ops", trusting: "b").hasSuffix(" 200"))
    for count in 2...4 {
      try use(count == 3 ? "b" : "a")
      service.signal(SIGHUP)
      try Tool.awaitText("reloaded", in: service.logFile, times: count)
    }
    #expect(try curl(service, "/v1", as: "a-ops").hasSuffix(" 200"))
    stream.end()
    #expect(try service.end() == 0)
  }

  @Test(
    "Revoked certificates do nothing from SIGHUP on; what is wrong for NBD does not keep them, nor the other way round"
  )
  func revocation() throws {
    let keys = "\(folder.path)/keys"
    try Tool.shell("umask 077 && echo alice:00112233445566778899aabbccddeeff > '\(keys)'")
    let service = try service(["--nbd-tls-psk", keys])
    #expect(try curl(service, "/v1", as: "a-ops").hasSuffix(" 200"))
    try Tool.shell(
      """
      cd '\(tls)' && exec 2>> make.log && : > index && echo 01 > number
      printf '[ca]\\ndefault_ca=own\\n[own]\\ndatabase=index\\ncrlnumber=number\\ndefault_md=sha256\\n' > cnf
      ca() { openssl ca -config cnf -cert a-ca.pem -keyfile a-ca-key.pem "$@"; }
      ca -revoke a-ops.pem && ca -gencrl -crldays 2 -out own/ca-crl.pem && echo alice: > '\(keys)'
      """)
    service.signal(SIGHUP)
    try Tool.awaitText("some certificates are new", in: service.logFile)
    #expect(try curl(service, "/v1", as: "a-ops").hasSuffix(" 401"))
    #expect(try curl(service, "/v1", as: "a-tenant").hasSuffix(" 200"))
    try Tool.shell(
      "echo nonsense > '\(tls)/own/ca-crl.pem' && echo bob:00112233445566778899aabbccddeeff > '\(keys)'"
    )
    service.signal(SIGHUP)
    try Tool.awaitText("some certificates are new", in: service.logFile, times: 2)
    #expect(try curl(service, "/v1", as: "a-ops").hasSuffix(" 401"))
    let log = try Tool.shell("cat '\(service.logFile)'").output
    #expect(!log.contains("reloaded"))
    #expect(try service.end() == 0)
  }

  @Test("Beyond the loopback the names that it is called by are those that it was given")
  func names() throws {
    let service = try service(["--http-host", "ploop.example"], listen: "0.0.0.0:0")
    #expect(try curl(service, "/v1", as: "a-ops", host: "ploop.example").hasSuffix(" 200"))
    #expect(try curl(service, "/v1", as: "a-ops", host: "localhost").hasSuffix(" 200"))
    let other = try curl(
      service, "/v1", as: "a-ops", "-H 'Host: evil.example'", host: "ploop.example")
    #expect(other.contains("wrong-host"))
    #expect(try service.end() == 0)
  }

  @Test("What cannot be served is refused at the start, with the reason")
  func refusals() throws {
    func start(_ options: String) throws -> Tool.Result {
      try Tool.shell(
        """
        cd '\(folder.path)' && mkdir -p images && timeout 60 '\(RunningService.program)' serve \
          --state-dir s --root main=images --http-socket none --nbd-socket none --nbd-listen none \(options)
        """, check: false)
    }
    let cases = [
      ("--http-listen 0.0.0.0:0", 64, "TLS is compulsory"),
      ("--http-listen 0.0.0.0:0 --http-auth none --http-tls-certificates tls/own", 64, "http-auth"),
      ("--http-listen 127.0.0.1:0 --http-tls-client a=read", 64, "http-tls-certificates"),
      ("--http-tls-certificates tls/own --http-tls-client a=all", 64, "none of read"),
      ("--http-tls-certificates tls/own --http-tls-client a=read@A", 64, "patterns"),
      ("--http-tls-certificates tls/own --http-tls-client =read", 64, "NAME=SCOPES"),
      ("--http-listen 127.0.0.1:0 --http-tls-certificates tls", 1, "cannot be read"),
    ]
    for (options, status, words) in cases {
      let result = try start(options)
      #expect(result.status == Int32(status) && result.output.contains(words), "\(result.output)")
    }
    try Tool.shell("cp '\(tls)/b-server-key.pem' '\(tls)/own/server-key.pem'")
    let result = try start("--http-listen 127.0.0.1:0 --http-tls-certificates tls/own")
    #expect(result.status == 1 && result.output.contains("cannot be used"), "\(result.output)")
  }
}
