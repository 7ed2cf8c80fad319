import Foundation
import TestSupport
import Testing

@Suite("ploopctl against a service")
struct PloopctlTests {
  @Test(
    "The life of a disk by ploopctl alone: made, written, snapshotted, merged, backed up, restored")
  func life() throws {
    let ctl = try PloopctlFixture()
    try ctl.run("devices create vm1 --size 64M --export vm1 --label stage=test")
    let uri = ctl.service.uri("vm1")
    try Tool.shell("qemu-io -f raw -c 'write -P 7 0 8M' '\(uri)'")
    #expect(try ctl.run("devices list").contains("vm1     online  64 MiB       1  vm1"))
    #expect(
      try ctl.run("devices list --label stage=prod") == "DEVICE  STATE  SIZE  DELTAS  EXPORTS\n")
    try ctl.run("snapshots create vm1 --name monday")
    try Tool.shell("qemu-io -f raw -c 'write -P 8 1M 1M' '\(uri)'")
    #expect(try ctl.run("snapshots list vm1 --tree").contains("monday"))

    // A plan changes nothing; without an answer nothing is done.
    #expect(try ctl.run("run merge vm1 --dry-run").contains("bytes_to_copy:"))
    let refused = try ctl.shell("ploopctl run merge vm1 < /dev/null", check: false)
    #expect(refused.status == 9 && refused.output.contains("--yes"), "\(refused.output)")
    #expect(try ctl.json("jobs list")["items"] as? [[String: String]] == [])
    let merge = try ctl.run("run merge vm1 --yes --wait")
    #expect(merge.contains("merge vm1: succeeded"), "\(merge)")
    #expect(!merge.contains("\r") && !merge.contains("\u{1B}"))
    try Tool.shell("qemu-io -r -f raw -c 'read -P 8 1M 1M' -c 'read -P 7 2M 6M' '\(uri)'")

    try ctl.run("targets create nas --directory backups")
    try ctl.run("run backup vm1 --target nas --wait --quiet")
    let backups = try ctl.json("backups list nas")["items"] as? [[String: Any]] ?? []
    let backup = try #require(backups.first?["id"] as? String)
    try Tool.shell("qemu-io -f raw -c 'write -P 9 0 8M' '\(uri)'")
    #expect(try ctl.run("devices detach vm1") == "vm1: detached\n")
    try ctl.run("run restore nas \(backup) --into vm1/DiskDescriptor.xml --yes --wait")
    try ctl.run("devices attach vm1 --descriptor vm1/DiskDescriptor.xml --export vm1")
    try Tool.shell("qemu-io -r -f raw -c 'read -P 8 1M 1M' -c 'read -P 7 2M 6M' '\(uri)'")
    // The bytes by HTTP are those by NBD.
    try ctl.shell("ploopctl exports data vm1 > copy && nbdcopy '\(uri)' theirs && cmp copy theirs")
    try ctl.shell(
      "ploopctl exports data vm1 --offset 1M --length 2M | cmp - <(tail -c +1048577 theirs | head -c 2097152)"
    )
    #expect(try ctl.run("exports extents vm1 --length 8M").contains("next_offset:"))
    let full = try ctl.shell("ploopctl exports data vm1 > /dev/full", check: false)
    #expect(full.status == 1 && full.output.contains("cannot write"))
    try ctl.shell("set +o pipefail; ploopctl exports data vm1 | head -c 100 > /dev/null")
    try ctl.run("run resize vm1 128M --yes --wait")
    #expect(try ctl.json("devices show vm1")["size"] as? Int == 128 << 20)
    #expect(try ctl.run("backups delete nas \(backup) --yes") == "\(backup): removed\n")
    try ctl.run("targets delete nas")
    try ctl.run("devices suspend vm1 --for 600")
    #expect(try ctl.run("devices show vm1").contains("resumes_at:"))
    try ctl.run("devices resume vm1")
    try ctl.run("devices detach vm1")
    // Nobody asks for a disk that stays where it is; one that a move has begun here goes with its files.
    let incoming =
      #"{"id":"in","create":{"directory":"in","size":16777216},"incoming":"somebody"}"#
    #expect(try ctl.service.post("/v1/devices", incoming).status == 201)
    let kept = try ctl.shell("ploopctl devices detach in < /dev/null", check: false)
    #expect(kept.status == 9 && kept.output.contains("files go with it"), "\(kept.output)")
    #expect(try ctl.run("devices detach in --yes") == "in: detached\n")
    // Lists have all parts, whatever their number.
    for number in 0..<3 { try ctl.run("devices create d\(number) --size 16M") }
    #expect((try ctl.json("devices list")["items"] as? [Any])?.count == 3)
    #expect(try ctl.service.end() == 0)
  }

  @Test("Each kind of problem is a status of its own, with the cause and the way out")
  func statuses() throws {
    let ctl = try PloopctlFixture(httpListen: "127.0.0.1:0")
    let web = "http://\(try ctl.service.httpAddress())"
    #expect(try ctl.status("devices list") == 0)
    #expect(try ctl.status("--help") == 0 && ctl.status("--version") == 0)
    // 2: the command line, and what the service says of a value.
    for wrong in ["lost", "devices list --lost", "devices create vm1 --size 12345"] {
      #expect(try ctl.status(wrong) == 2, "\(wrong)")
    }
    let missing = try ctl.shell("ploopctl devices show none", check: false)
    #expect(missing.status == 3 && missing.output.contains("device-not-found"))
    #expect(missing.output.contains("remedy:") && missing.output.contains("request:"))
    #expect(try ctl.json("devices show none")["code"] as? String == "device-not-found")
    try ctl.run("devices create vm1 --size 16M --export vm1")
    #expect(try ctl.status("devices create vm1 --size 16M") == 4)
    #expect(try ctl.status("devices list --address \(web)") == 5)
    #expect(try ctl.status("devices list --address unix:none.sock") == 6)
    #expect(try ctl.status("devices list --address http://127.0.0.1:1") == 6)
    #expect(try ctl.status("devices list --address lost") == 2)

    // A job that has failed.
    try ctl.run("targets create nas --directory backups")
    try Tool.shell("qemu-io -f raw -c 'write -P 7 0 4M' '\(ctl.service.uri("vm1"))'")
    try ctl.run("run backup vm1 --target nas --wait --quiet")
    try ctl.shell(
      """
      for file in $(find images/backups -name '*.hds'); do
        printf 'wrong' | dd of="$file" bs=1 seek=$((2 << 20)) conv=notrunc status=none
      done
      """)
    let failed = try ctl.shell("ploopctl run verify nas --wait", check: false)
    #expect(failed.status == 7 && failed.output.contains("backup-corrupt"), "\(failed.output)")

    // One that cannot begin, and is interrupted, waited for and cancelled.
    try ctl.run("queue set --pause")
    let id = try #require(try ctl.json("run hash vm1")["id"] as? String)
    let wait = try ctl.begin("jobs wait \(id)", "wait")
    try Tool.awaitText("queued", in: "\(ctl.folder.path)/wait.err")
    wait.signal(SIGINT)
    #expect(try wait.wait(seconds: 120) == 130)
    #expect(try ctl.text("wait.err").contains("the job goes on; 'ploopctl jobs wait \(id)'"))
    #expect(try ctl.json("jobs show \(id)")["state"] as? String == "queued")
    let other = try ctl.begin("jobs wait \(id)", "other")
    try Tool.awaitText("queued", in: "\(ctl.folder.path)/other.err")
    try ctl.run("jobs cancel \(id)")
    #expect(try other.wait(seconds: 120) == 8)
    #expect(try ctl.status("jobs wait \(id)") == 8)
    #expect(try ctl.status("backups delete nas x < /dev/null") == 9)
    #expect(try ctl.service.end() == 0)
  }

  @Test("A server that is no such service, or says that it has failed, is status 1")
  func stranger() throws {
    let ctl = try PloopctlFixture()
    let result = try Tool.python(
      """
      import http.server, subprocess, sys, threading
      class Handler(http.server.BaseHTTPRequestHandler):
          def do_GET(self):
              body = b'<p>no' if 'metrics' in self.path else b'{"a":'
              self.send_response(500 if 'metrics' in self.path else 200)
              self.send_header('Content-Length', str(len(body)))
              self.end_headers()
              self.wfile.write(body)
          def log_message(self, *words): pass
      server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
      threading.Thread(target=server.serve_forever, daemon=True).start()
      address = 'http://127.0.0.1:%d' % server.server_port
      for words in (['service', 'metrics'], ['jobs', 'wait', 'a'], ['devices', 'list']):
          print(subprocess.run([sys.argv[1], *words, '--address', address], capture_output=True).returncode)
      """, [RunningService.builtProgram("ploopctl")])
    #expect(result.output == "1\n1\n1\n")
    #expect(try ctl.service.end() == 0)
  }

  @Test("What --curl prints does the same, run by a shell, and holds no secret")
  func curl() throws {
    let ctl = try PloopctlFixture(httpListen: "127.0.0.1:0")
    let secret = try Tool.shell(
      "'\(RunningService.program)' token add ops --scope admin --state-dir '\(ctl.folder.path)/state'"
    ).output.trimmingCharacters(in: .whitespacesAndNewlines)
    let create = try ctl.run("devices create vm1 --size 16M --label \"a=it's  \\$HOME\" --curl")
    #expect(create.contains("curl") && !create.contains("plp_"))
    #expect(try ctl.status("devices show vm1") == 3)
    try ctl.shell(create)
    let labels = try ctl.json("devices show vm1")["labels"] as? [String: String]
    #expect(labels == ["a": "it's  $HOME"])
    let web = "--address http://\(try ctl.service.httpAddress())"
    try Tool.shell("printf '%s\\n' '\(secret)' > '\(ctl.folder.path)/bare'")
    try Tool.shell("printf 'Authorization: Bearer %s\\n' '\(secret)' > '\(ctl.folder.path)/header'")
    let before = "export PLOOPD_TOKEN='\(secret)';"
    for place in ["", web, "\(web) --token-file bare", "\(web) --token-file header"] {
      for command in ["devices list", "devices show vm1", "snapshots list vm1", "queue show"] {
        let call = try ctl.shell("\(before) ploopctl \(command) \(place) --curl").output
        #expect(!call.contains("plp_"), "\(call)")
        let same = try ctl.shell(
          "\(before) ploopctl \(command) \(place) --json | python3 -m json.tool > own && { \(call)\n} | python3 -m json.tool > theirs && cmp own theirs",
          check: false)
        #expect(same.status == 0, "\(call): \(same.output)")
      }
    }
    // A job by the call, and what it would do.
    let plan = try ctl.run("run hash vm1 --dry-run --curl")
    #expect(try ctl.shell(plan).output.contains("\"dry_run\":true"))
    let job = try ctl.shell(try ctl.run("run hash vm1 --wait --curl")).output
    #expect(job.contains("\"state\":\"succeeded\""))
    #expect(try ctl.run("api GET /v1/devices/vm1").contains("\"id\":\"vm1\""))
    #expect(
      try ctl.run("api POST /v1/jobs --data '{\"type\":\"hash\",\"device\":\"vm1\"}'").contains(
        "\"type\":\"hash\""))
    #expect(try ctl.service.end() == 0)
  }
}
