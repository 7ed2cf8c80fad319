import Foundation
import TestSupport
import Testing

@Suite("The command line of the service")
struct CommandLineTests {
  private func ploopd(_ arguments: String, in folder: TemporaryFolder) throws -> Tool.Result {
    try Tool.shell("cd '\(folder.path)' && '\(RunningService.program)' \(arguments)", check: false)
  }

  @Test("--version says the version that the API says")
  func version() throws {
    let folder = try TemporaryFolder()
    let said = try ploopd("--version", in: folder).output.split(separator: "\n").first
    let service = try RunningService(in: folder.path)
    let version = try #require(try service.get("/v1").json["version"] as? String)
    #expect(said == "ploopd \(version)")
  }

  @Test(
    "What cannot be is refused before anything is made, with what is wrong",
    arguments: [
      ("serve --http-listen 0.0.0.0:7447", "loopback"),
      ("serve --nbd-listen 10.0.0.1:1", "loopback"),
      ("serve --http-listen [::]:7447", "loopback"),
      ("serve --http-listen example.org:80", "loopback"),
      ("serve --http-listen 127.0.0.1", "HOST:PORT"),
      ("serve --http-listen 127.0.0.1:99999", "HOST:PORT"),
      ("serve --http-auth maybe", "token nor none"), ("token add a --scope all", "none of read"),
      ("token add a/b --scope read", "no name"),
      ("token add a --scope read --from 10.0.0.1/8", "10.0.0.1/8"),
      ("token add a --scope read --device A", "--device"),
      ("token add a --scope read --expires 0d", "0d"),
      ("token add a --scope read --expires 2001-01-01T00:00:00Z", "over"),
      ("serve --root main", "NAME=DIR"), ("serve --log-level loud", "loud"),
      ("serve --colour", "--colour"), ("serve --config missing.yaml", "missing.yaml"),
      (
        "serve --config bad.yaml", "bad.yaml:1: there is no setting http_listen; http-listen is one"
      ),
      ("serve --config twice.yaml", "log-level"),
      ("serve --config value.yaml", "value.yaml:3: nbd-listen: here is no HOST:PORT"),
      ("serve --config list.yaml", "list.yaml"), ("frobnicate", "frobnicate"),
    ])
  func refused(arguments: String, words: String) throws {
    let folder = try TemporaryFolder()
    try Tool.shell(
      """
      cd '\(folder.path)' && echo 'http_listen: none' > bad.yaml && echo '- a' > list.yaml &&
      printf 'log-level: info\\nlog-level: debug\\n' > twice.yaml &&
      printf '# one\\nlog-level: info\\nnbd-listen: here\\n' > value.yaml
      """)
    let result = try ploopd(arguments, in: folder)
    #expect(result.status == 64, "\(result.output)")
    #expect(result.output.contains(words), "\(result.output)")
    #expect(try Tool.shell("ls '\(folder.path)'").output.contains("var") == false)
  }

  @Test("A root that is not there ends the start with 1 and its name")
  func missingRoot() throws {
    let folder = try TemporaryFolder()
    let result = try ploopd(
      "serve --state-dir . --root main=missing --http-socket none --http-listen none --nbd-socket none --nbd-listen none",
      in: folder)
    #expect(result.status == 1)
    #expect(result.output.contains("the root main cannot be opened"), "\(result.output)")
  }

  @Test("Settings are checked beside a service that runs with them, and each fault is told")
  func checked() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    try Tool.shell(
      """
      cd '\(folder.path)' && cat > settings.yaml <<'END'
      state-dir: \(folder.path)/state
      root: {main: \(service.images)}
      http-socket: \(service.httpSocket)
      http-listen: none
      nbd-socket: \(service.nbdSocket)
      nbd-listen: 127.0.0.1:10809
      END
      sed -e '/^root/s/images/missing/; s/127.0.0.1/192.0.2.1/' -e '$a audit-log: nowhere/audit.jsonl' \
        -e '$a nbd-tls-certificates: nothing' -e '$a nbd-tls-verify-peer: true' settings.yaml > faulty.yaml
      """)
    let fine = try ploopd("serve --config settings.yaml --check-config", in: folder)
    #expect(fine.status == 0 && fine.output == "the settings are in order\n", "\(fine.output)")
    let faulty = try ploopd("serve --config faulty.yaml --check-config", in: folder)
    #expect(faulty.status == 1)
    for words in [
      "root: the root main cannot be opened", "audit-log: nowhere cannot be used",
      "nbd-listen: nobody can listen at 192.0.2.1", "NBD over TLS: ",
    ] {
      #expect(faulty.output.contains("ploopd: \(words)"), "\(faulty.output)")
    }
    #expect(try ploopd("serve --check-config", in: folder).status == 0)
    #expect(try Tool.shell("ls '\(folder.path)'").output.contains("var") == false)
  }

  @Test("A file of settings holds the same names, and options win over it")
  func file() throws {
    let folder = try TemporaryFolder()
    try Tool.shell(
      """
      cd '\(folder.path)' && mkdir other images state && cat > settings.yaml <<'END'
      # All of it
      state-dir: \(folder.path)/nowhere
      root:
        main: \(folder.path)/images
        second: \(folder.path)/other
      http-socket: \(folder.path)/from-file.sock
      nbd-socket: none
      nbd-listen: 127.0.0.1:0
      http-listen: none
      index-cache-size: 16MiB
      log-level: warning
      log-json: true
      END
      """)
    let arguments =
      "serve --config settings.yaml --state-dir state --log-level info --nbd-socket nbd.sock"
    try Tool.shell(
      """
      cd '\(folder.path)'
      '\(RunningService.program)' \(arguments) 2> log & service=$!
      until grep -q '"message":"ready"' log; do kill -0 $service || { cat log; exit 1; }; sleep 0.02; done
      curl -sSf --unix-socket from-file.sock http://localhost/v1 > v1
      curl -sSf --unix-socket from-file.sock http://localhost/metrics | grep -q '^ploopd_index_cache_budget_bytes 16777216' || exit 1
      kill -INT $service; wait $service
      """, seconds: 60)
    let v1 = try Tool.shell("cat '\(folder.path)/v1'").output
    let json = try #require(
      try JSONSerialization.jsonObject(with: Data(v1.utf8)) as? [String: Any])
    let roots = (json["roots"] as? [[String: Any]])?.compactMap { $0["name"] as? String }
    #expect(roots == ["main", "second"])
    let doors = (json["nbd"] as? [[String: Any]])?.compactMap { $0["uri"] as? String } ?? []
    #expect(doors.count == 2)
    #expect(doors.contains { $0.hasPrefix("nbd://127.0.0.1:") && !$0.contains(":0/") })
    // Every line of the log is one JSON object.
    for line in try Tool.shell("cat '\(folder.path)/log'").output.split(separator: "\n") {
      let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
      #expect(object?["level"] as? String != nil && object?["time"] as? String != nil)
    }
  }

  @Test("A supervisor is told when it is ready and when it stops")
  func notifies() throws {
    let folder = try TemporaryFolder()
    try Tool.shell("mkdir '\(folder.path)/images' '\(folder.path)/state'")
    try Tool.python(
      """
      import os, signal, socket, subprocess, sys
      program, folder = sys.argv[1], sys.argv[2]
      for name in (folder + "/notify", "\\0ploopd-test-" + str(os.getpid())):
          s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
          s.bind(name); s.settimeout(30)
          p = subprocess.Popen([program, "serve", "--state-dir", folder + "/state", "--root",
              "main=" + folder + "/images", "--http-socket", folder + "/api.sock", "--http-listen",
              "none", "--nbd-socket", "none", "--nbd-listen", "none"],
              env=dict(os.environ, NOTIFY_SOCKET=name.replace("\\0", "@")))
          assert "READY=1" in s.recv(4096).decode().split("\\n")
          p.send_signal(signal.SIGTERM)
          assert "STOPPING=1" in s.recv(4096).decode().split("\\n")
          assert p.wait(30) == 0
      """, [RunningService.program, folder.path])
  }

  @Test("As many files may be open as the host allows")
  func openFiles() throws {
    let folder = try TemporaryFolder()
    let limits = try Tool.shell(
      """
      cd '\(folder.path)' && mkdir images && ulimit -Sn 256 && ulimit -Hn 5000
      '\(RunningService.program)' serve --state-dir . --root main=images --http-socket none \
        --http-listen none --nbd-socket n.sock --nbd-listen none 2> log & service=$!
      until grep -q ready log; do kill -0 $service || exit 1; sleep 0.02; done
      grep 'Max open files' /proc/$service/limits
      kill $service; wait $service
      """
    ).output
    #expect(limits.split(separator: " ").filter { $0 == "5000" }.count == 2, "\(limits)")
  }

  @Test("Somebody who only names a folder of images has a service on it, from an empty folder on")
  func onlyARoot() throws {
    let folder = try TemporaryFolder()
    try Tool.shell(
      """
      cd '\(folder.path)' && mkdir images && qemu-img create -q -f parallels images/a.hds 16M
      '\(RunningService.program)' serve --root mine=images --http-listen none --nbd-listen none 2> log & service=$!
      until grep -q ready log; do kill -0 $service || { cat log; exit 1; }; sleep 0.02; done
      curl -sSf --unix-socket var/api.sock http://localhost/v1/devices -H 'Content-Type: application/json' \
        -d '{"id":"a","deltas":[{"path":"a.hds"}],"export":{"name":"a"}}'
      nbdinfo "nbd+unix:///a?socket=$PWD/var/nbd.sock"
      kill $service; wait $service
      """)
    #expect(
      try Tool.shell("ls '\(folder.path)/var' '\(folder.path)/var/state'").output
        .contains("images") == false)
  }
}
