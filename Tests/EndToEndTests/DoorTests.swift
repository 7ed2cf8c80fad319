import Foundation
import TestSupport
import Testing

@Suite("Doors and clients")
struct DoorTests {
  private func service(_ folder: TemporaryFolder) throws -> RunningService {
    let service = try RunningService(in: folder.path)
    let reply = try service.create("vm1", sizeBytes: 16_777_216)
    #expect(reply.status == 201, "\(reply.text)")
    return service
  }

  @Test(
    "Detach is refused while somebody is connected, waits for who is leaving, and can be forced")
  func detachModes() throws {
    let folder = try TemporaryFolder()
    let service = try service(folder)
    try startClient(
      folder, service.uri("vm1"),
      """
      h.pwrite(b"1" * 4096, 0)
      os.mkfifo("leave")
      open("in", "w")
      open("leave").read()
      h.shutdown()
      """)
    let refused = try service.delete("/v1/devices/vm1")
    #expect(refused.status == 409 && refused.code == "device-in-use", "\(refused.text)")
    let clients = refused.json["clients"] as? [[String: Any]]
    #expect(clients?.count == 1)
    let process = try Tool.shell("cat '\(folder.path)/client.pid'").output.dropLast()
    #expect(
      (clients?.first?["peer"] as? String)?.contains("pid=\(process),") == true, "\(refused.text)")
    #expect(try service.get("/v1/devices/vm1").json["state"] as? String == "online")
    #expect(try service.delete("/v1/exports/vm1").code == "export-in-use")
    // It leaves while the next detach is already waiting for it.
    try Tool.shell("echo > '\(folder.path)/leave'")
    #expect(try service.delete("/v1/devices/vm1").status == 204)

    #expect(try service.attach("vm1", ["vm1/root.hds"]).status == 201)
    try startClient(
      folder, service.uri("vm1"),
      """
      open("in", "w")
      n = 0
      try:
          while True:
              h.pwrite(bytes([n % 251 + 1]) * 65536, n * 65536 % (16 << 20)); n += 1
      except nbd.Error as e: print(e.errno)
      """)
    #expect(try service.delete("/v1/devices/vm1?mode=hard").status == 204)
    try Tool.shell(
      "cd '\(folder.path)'; tail --pid=$(cat client.pid) -s 0.02 -f /dev/null")
    try Tool.shell("qemu-img check -f parallels '\(service.images)/vm1/root.hds'")
  }

  @Test("Requests that wait at a suspended disk keep no other disk, and no stop, waiting")
  func suspendedUnderLoad() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    for id in ["held", "free"] {
      #expect(try service.create(id, sizeBytes: 64 << 20, clusterBytes: 1 << 16).status == 201)
    }
    #expect(try service.patch("/v1/devices/held", "{\"suspended\":true}").status == 200)
    // More than the engine has threads.
    let fill = """
      buffer = nbd.Buffer(4096)
      for i in range(100): h.aio_pwrite(buffer, i * 65536)
      while h.aio_get_direction() & 2: h.poll(100)
      """
    try startClient(
      folder, service.uri("held"),
      """
      os.mkfifo("leave")
      \(fill)
      open("in", "w")
      open("leave").read()
      while h.aio_in_flight() > 0: h.poll(-1)
      print("done")
      h.shutdown()
      """)
    try Tool.shell(
      "timeout 60 qemu-io -f raw -c 'write -P 1 0 1M' -c flush '\(service.uri("free"))'")
    #expect(try service.patch("/v1/devices/held", "{\"suspended\":false}").status == 200)
    try Tool.shell(
      """
      cd '\(folder.path)'; echo > leave
      tail --pid=$(cat client.pid) -s 0.02 -f /dev/null
      grep -q done client.out
      """)
    #expect(try service.patch("/v1/devices/held", "{\"suspended\":true}").status == 200)
    try startClient(folder, service.uri("held"), "\(fill)\nopen(\"in\", \"w\")\nh.poll(-1)")
    #expect(try service.end() == 0)
  }

  @Test("A suspended disk admits nobody until it is resumed, and can be looked at meanwhile")
  func suspended() throws {
    let folder = try TemporaryFolder()
    let service = try service(folder)
    let reply = try service.patch("/v1/devices/vm1", "{\"suspended\":true}")
    #expect(reply.json["state"] as? String == "suspended", "\(reply.text)")
    #expect(try service.patch("/v1/devices/vm1", "{\"suspended\":true}").text == reply.text)
    try startClient(
      folder, service.uri("vm1"),
      """
      open("in", "w")
      h.pwrite(b"late" * 1024, 0)
      print("written")
      h.shutdown()
      """)
    #expect(try service.get("/v1/devices/vm1/map").status == 200)
    let statistics = try service.get("/v1/devices/vm1/stats").json
    #expect((statistics["write"] as? [String: Any])?["ops"] as? Int == 0)
    #expect(try service.get("/v1/devices/vm1").json["suspended"] as? Bool == true)
    #expect(try Tool.shell("cat '\(folder.path)/client.out'").output == "")
    #expect(try service.patch("/v1/devices/vm1", "{\"suspended\":false}").status == 200)
    try Tool.shell(
      "cd '\(folder.path)'; tail --pid=$(cat client.pid) -s 0.02 -f /dev/null; grep -q written client.out"
    )
    // From the beginning on: no guest before it is resumed.
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    let held = try service.attach("vm1", ["vm1/root.hds"], ",\"suspended\":true")
    #expect(held.json["state"] as? String == "suspended", "\(held.text)")
    #expect(try service.delete("/v1/devices/vm1?mode=hard").status == 204)
    try Tool.shell("qemu-img check -f parallels '\(service.images)/vm1/root.hds'")
  }

  @Test("A suspended disk is flushed and keeps its clients waiting no longer than it was told")
  func limited() throws {
    let folder = try TemporaryFolder()
    let service = try service(folder)
    try startClient(
      folder, service.uri("vm1"),
      """
      h.pwrite(b"flushed!" * 512, 0)
      open("in", "w")
      os.mkfifo("leave")
      open("leave").read()
      h.pwrite(b"late" * 1024, 8192)
      print("written")
      h.shutdown()
      """)
    let body = "{\"suspended\":true,\"suspend_timeout_seconds\":1}"
    let reply = try service.patch("/v1/devices/vm1", body)
    let holder = (reply.json["suspension"] as? [String: Any])?["holder"] as? String
    #expect(holder == "uid:\(getuid())")
    // Nobody has flushed: what the index in the file says is what suspending has written.
    try Tool.shell(
      """
      set -e
      cp '\(service.images)/vm1/root.hds' '\(folder.path)/copy.hds'
      qemu-io -f parallels -r -c 'read -P 0x66 0 1' '\(folder.path)/copy.hds'
      echo > '\(folder.path)/leave'
      cd '\(folder.path)'; tail --pid=$(cat client.pid) -s 0.02 -f /dev/null; grep -q written client.out
      """)
    let after = try service.get("/v1/devices/vm1").json
    #expect(after["state"] as? String == "online" && after["suspension"] is NSNull)
  }

  @Test("A disk has as many doors as are asked for; a second writer has to be meant")
  func doors() throws {
    let folder = try TemporaryFolder()
    let service = try service(folder)
    let second = try service.post("/v1/exports", "{\"name\":\"w2\",\"device\":\"vm1\"}")
    #expect(second.status == 409 && second.code == "writer-exists", "\(second.text)")
    let shared = "{\"name\":\"w2\",\"device\":\"vm1\",\"shared_writers\":true}"
    #expect(try service.post("/v1/exports", shared).status == 201)
    #expect(try service.post("/v1/exports", shared).code == "export-exists")
    let ro = try service.post(
      "/v1/exports",
      "{\"name\":\"ro\",\"device\":\"vm1\",\"readonly\":true,\"description\":\"to look at\"}")
    #expect(ro.status == 201, "\(ro.text)")
    #expect((ro.json["uris"] as? [String]) == [service.uri("ro")])
    #expect(
      try service.post("/v1/exports", "{\"name\":\"x\",\"device\":\"nope\"}").code
        == "device-not-found")
    try Tool.python(
      """
      import nbd, sys
      w, w2, ro = nbd.NBD(), nbd.NBD(), nbd.NBD()
      for h, u in zip((w, w2, ro), sys.argv[1:]): h.connect_uri(u)
      w.pwrite(b"A" * 512, 0)
      w2.pwrite(b"B" * 512, 512)
      assert ro.pread(1024, 0) == b"A" * 512 + b"B" * 512
      assert ro.is_read_only() and not w.is_read_only()
      ro.set_strict_mode(0)
      try: ro.pwrite(b"C" * 512, 0); raise SystemExit("written through a read-only door")
      except nbd.Error as e: assert e.errno == "EPERM", e
      """, ["vm1", "w2", "ro"].map(service.uri))
    let list = try Tool.shell("nbdinfo --list --json '\(service.uri(""))'").output
    #expect(list.contains("to look at"))
    #expect(try service.delete("/v1/exports/ro").status == 204)
    #expect(try service.get("/v1/exports/ro").status == 404)
    let gone = try Tool.shell("nbdinfo '\(service.uri("ro"))'", check: false)
    #expect(gone.status != 0)
    #expect(try service.get("/v1/exports").json["items"] as? [Any] != nil)
  }

  @Test("Hundreds of devices are listed page by page, and come back together")
  func many() throws {
    let folder = try Tool.shell("mktemp -d /dev/shm/ploopd-test-XXXXXX").output.dropLast()
    defer { _ = try? Tool.shell("rm -rf '\(folder)'") }
    let service = try RunningService(in: String(folder))
    let count = 300
    try Tool.shell(
      """
      for i in $(seq -w 1 \(count)); do
        echo "url = http://localhost/v1/devices"
        echo 'unix-socket = "\(service.httpSocket)"'
        echo 'header = "Content-Type: application/json"'
        echo "data = \\"{\\\\\\"id\\\\\\":\\\\\\"d$i\\\\\\",\\\\\\"create\\\\\\":{\\\\\\"directory\\\\\\":\\\\\\"d$i\\\\\\",\\\\\\"size\\\\\\":8388608,\\\\\\"cluster_size\\\\\\":65536},\\\\\\"labels\\\\\\":{\\\\\\"odd\\\\\\":\\\\\\"$((10#$i % 2))\\\\\\"},\\\\\\"export\\\\\\":{\\\\\\"name\\\\\\":\\\\\\"d$i\\\\\\"}}\\""
        echo next
      done | sed '$d' > '\(folder)/requests'
      curl -sS -f -K '\(folder)/requests' > /dev/null
      """, seconds: 120)
    func check() throws {
      var seen: [String] = []
      var path: String? = "/v1/devices?limit=100"
      while let next = path {
        let page = try service.get(next).json
        seen += (page["items"] as? [[String: Any]] ?? []).compactMap { $0["id"] as? String }
        path = (page["next"] as? String).map { "/v1/devices?limit=100&cursor=\($0)" }
      }
      #expect(seen.count == count && seen == seen.sorted() && Set(seen).count == count)
      let odd = try service.get("/v1/devices?limit=1000&label.odd=1").json["items"] as? [Any]
      #expect(odd?.count == count / 2)
      let exports = try service.get("/v1/exports?limit=1000").json["items"] as? [Any]
      #expect(exports?.count == count)
    }
    try check()
    service.kill()
    try service.start()
    try check()
    #expect(try service.end() == 0)
  }
}
