import Foundation
import TestSupport
import Testing

@Suite("ploopctl for people: terminals, completion, events, secure connections")
struct PloopctlTerminalTests {
  /// Runs a command on a terminal of 80 columns and types something in.
  private func typing(_ text: String, _ ctl: PloopctlFixture, _ arguments: [String]) throws
    -> String
  {
    try Tool.python(
      """
      import os, pty, sys
      program, address, text, *words = sys.argv[1:]
      child, terminal = pty.fork()
      if child == 0:
          os.environ.update(PLOOPD_ADDRESS=address, COLUMNS='80')
          os.execv(program, [program, *words])
      if text: os.write(terminal, text.encode() + b'\\n')
      seen = b''
      while True:
          try: piece = os.read(terminal, 65536)
          except OSError: break
          if not piece: break
          seen += piece
      status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
      sys.stdout.buffer.write(seen + b'\\nstatus %d\\n' % status)
      """,
      [RunningService.builtProgram("ploopctl"), "unix:\(ctl.service.httpSocket)", text] + arguments
    ).output
  }

  @Test(
    "On a terminal the plan is shown and the question asked, and progress is a bar that is written over"
  )
  func terminal() throws {
    let ctl = try PloopctlFixture()
    try ctl.run("devices create vm1 --size 64M --export vm1")
    try Tool.shell("qemu-io -f raw -c 'write -P 7 0 8M' '\(ctl.service.uri("vm1"))'")
    try ctl.run("snapshots create vm1")
    try Tool.shell("qemu-io -f raw -c 'write -P 7 0 8M' '\(ctl.service.uri("vm1"))'")
    let no = try typing("no", ctl, ["run", "merge", "vm1", "--wait"])
    #expect(no.contains("bytes_to_copy:") && no.contains("[y/N]"), "\(no)")
    #expect(no.contains("nothing was done") && no.hasSuffix("status 9\n"), "\(no)")
    let yes = try typing("y", ctl, ["run", "merge", "vm1", "--wait"])
    #expect(yes.contains("\u{1B}[K") && yes.hasSuffix("status 0\n"), "\(yes)")
    #expect(yes.contains("merge vm1: succeeded"), "\(yes)")
    let list = try typing("", ctl, ["images", "list"])
    #expect(list.split(separator: "\r\n").allSatisfy { $0.count <= 80 }, "\(list)")
    #expect(try ctl.service.end() == 0)
  }

  @Test("bash takes the completion, which knows commands and the names of devices")
  func completion() throws {
    let ctl = try PloopctlFixture()
    try ctl.run("devices create vm-one --size 16M")
    try ctl.run("--generate-completion-script bash > completion && bash -n completion")
    try ctl.run("--generate-completion-script zsh > zsh && grep -q compdef zsh")
    try ctl.run("--generate-completion-script fish > fish && grep -q 'complete -c' fish")
    func complete(_ words: String) throws -> [String] {
      try ctl.shell(
        """
        PATH="\(RunningService.builtProgram("")):$PATH"
        unset -f ploopctl
        . ./completion
        COMP_WORDS=(\(words)); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}
        _ploopctl ploopctl "${COMP_WORDS[COMP_CWORD]}" "" 2> /dev/null
        printf '%s\\n' "${COMPREPLY[@]}"
        """
      ).output.split(separator: "\n").map { String($0).trimmingCharacters(in: .whitespaces) }
    }
    #expect(try complete("ploopctl dev").contains("devices"))
    #expect(try complete("ploopctl devices show vm").contains("vm-one"))
    #expect(try ctl.service.end() == 0)
  }

  @Test("Events are followed over the end of a service, and told once each")
  func events() throws {
    let ctl = try PloopctlFixture()
    try ctl.run("devices create vm1 --size 16M")
    let follow = try ctl.begin("watch --after 0", "events")
    let file = "\(ctl.folder.path)/events.out"
    try Tool.awaitText("device.created  vm1", in: file)
    #expect(try ctl.service.end() == 0)
    try ctl.service.start()
    try ctl.run("devices create vm2 --size 16M")
    try Tool.awaitText("device.created  vm2", in: file)
    follow.signal(SIGINT)
    #expect(try follow.wait(seconds: 120) == 130)
    #expect(try ctl.text("events.out").ranges(of: "device.created  vm1").count == 1)
    #expect(try ctl.run("events --list --types device.created").contains("device.created  vm2"))
    let lines = try ctl.json("events --list --device vm2")["items"] as? [[String: Any]] ?? []
    #expect(lines.allSatisfy { $0["device"] as? String == "vm2" } && !lines.isEmpty)
    #expect(try ctl.service.end() == 0)
  }

  @Test("Over TCP with TLS, by a token or a certificate, which nobody reads among the processes")
  func secure() throws {
    let keys = try TemporaryFolder()
    let made = try Certificates(in: keys.path)
    try made.authority("ca-cert")
    try made.make("server", by: "ca-cert", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    try made.make("ops", by: "ca-cert", "extendedKeyUsage=clientAuth")
    try made.authority("other")
    try Tool.shell(
      "cd '\(keys.path)' && cp server.pem server-cert.pem && mv ca-cert-key.pem authority-key.pem")
    let ctl = try PloopctlFixture(
      ["--http-tls-certificates", keys.path, "--http-tls-client", "ops=admin"],
      httpListen: "127.0.0.1:0")
    let secret = try Tool.shell(
      "'\(RunningService.program)' token add ops --scope admin --state-dir '\(ctl.folder.path)/state'"
    ).output.trimmingCharacters(in: .whitespacesAndNewlines)
    let reader = try Tool.shell(
      "'\(RunningService.program)' token add reader --scope read --state-dir '\(ctl.folder.path)/state'"
    ).output.trimmingCharacters(in: .whitespacesAndNewlines)
    let place =
      "export PLOOPD_ADDRESS=https://\(try ctl.service.httpAddress()) PLOOPD_CA='\(keys.path)/ca-cert.pem';"
    func run(_ arguments: String, _ token: String, check: Bool = true) throws -> Tool.Result {
      try ctl.shell("\(place) export PLOOPD_TOKEN='\(token)'; ploopctl \(arguments)", check: check)
    }
    _ = try run("devices create vm1 --size 16M --export vm1", secret)
    try Tool.shell("qemu-io -f raw -c 'write -P 7 0 8M' '\(ctl.service.uri("vm1"))'")
    _ = try run("snapshots create vm1", secret)
    _ = try run("run merge vm1 --yes --wait", secret)
    #expect(try run("devices list", reader).output.contains("vm1"))
    let refused = try run("devices detach vm1", reader, check: false)
    #expect(refused.status == 5 && refused.output.contains("scope needed: admin"))
    #expect(try run("devices list", "", check: false).status == 5)
    #expect(
      try run("devices list", "plp_\(String(repeating: "x", count: 43))", check: false).status == 5)
    // Whoever vouches for nobody, and a certificate instead of a token.
    #expect(
      try run("devices list --ca '\(keys.path)/other.pem'", secret, check: false).status == 6)
    let certified = try run(
      "devices show vm1 --cert '\(keys.path)/ops.pem' --key '\(keys.path)/ops-key.pem'", "")
    #expect(certified.output.contains("vm1"))

    let follow = try ChildProcess(
      [
        "/bin/bash", "-c",
        "\(ctl.setting) \(place) export PLOOPD_TOKEN='\(secret)'; exec '\(RunningService.builtProgram("ploopctl"))' events --after 0",
      ], output: "\(ctl.folder.path)/follow", errors: "\(ctl.folder.path)/follow")
    try Tool.awaitText("device.created", in: "\(ctl.folder.path)/follow")
    let words = try Tool.shell("tr '\\0' ' ' < /proc/\(follow.number)/cmdline").output
    #expect(words.contains("events") && !words.contains("plp_"), "\(words)")
    follow.end()
    _ = try run("devices detach vm1", secret)
    let log = try Tool.shell("cat '\(ctl.service.logFile)'").output
    #expect(log.contains("actor=token:ops") && log.contains("actor=cert:ops"))
    #expect(try ctl.service.end() == 0)
  }
}
