import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("Growing a disk while it is used")
struct ResizeTests {
  /// With clusters of 32 KiB an index cluster is enough for 256 MiB.
  private static let clusterBytes = 1 << 15
  private static let small = 200 << 20

  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
  }

  private func make(_ more: String = "") throws {
    let made = try service.create(
      "vm", sizeBytes: Self.small, clusterBytes: Self.clusterBytes, more)
    #expect(made.status == 201, "\(made.text)")
  }

  private func io(_ commands: String...) throws {
    let words = commands.map { "-c '\($0)'" }.joined(separator: " ")
    try Tool.shell("qemu-io -f raw \(words) '\(service.uri("vm"))'")
  }

  private func patch(
    _ body: String, _ headers: String..., query: String = ""
  ) throws -> RunningService.Reply {
    try service.call("PATCH", "/v1/devices/vm\(query)", body, headers)
  }

  private func grow(to size: Int, wait: Int = 60) throws -> RunningService.Reply {
    try patch("{\"size\":\(size)}", "Prefer: wait=\(wait)")
  }

  private var exportSize: Int {
    get throws {
      let output = try Tool.shell("nbdinfo --size '\(service.uri("vm"))'").output
      return try #require(Int(output.filter(\.isNumber)))
    }
  }

  private func stale() throws -> [[String: Any]] {
    try #require(try service.get("/v1/devices/vm").json["stale_clients"] as? [[String: Any]])
  }

  /// Closes the disk, and has OpenVZ's and QEMU's tools read it.
  private func judge(_ content: String) throws {
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let image = "\(service.images)/vm/root.hds"
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
    try QEMU.expectSound(image)
    // It skips what is a hole in both.
    try Tool.shell(
      "qemu-img compare -f parallels -F raw '\(image)' '\(folder.path)/\(content)'", seconds: 300)
  }

  @Test("again and again under fio, over more and more of the index, with every byte right")
  func underLoad() throws {
    try make()
    try io("write -P 1 0 8M", "write -P 2 180M 8M", "write -P 3 199M 1M")
    let ended = Monitor(false)
    let load = try Thread(name: "fio") {
      do {
        // On the clusters that are in the way, among others.
        try Tool.shell(
          """
          cd '\(self.folder.path)' && fio --name=load --ioengine=nbd --uri='\(self.service.uri("vm"))' --rw=randrw \
            --bs=16k --iodepth=8 --size=6m --time_based=1 --runtime=4 --verify=crc32c \
            --verify_backlog=64 --verify_fatal=1 --randseed=9 --output=fio.log >/dev/null 2>&1
          """, seconds: 300)
      } catch { Issue.record("the load: \(error)") }
      ended.update { $0 = true }
    }
    // Within the index cluster that is there, one more, another one, and many.
    for size in [250 << 20, 300 << 20, 600 << 20, 4 << 30] {
      let grown = try grow(to: size)
      #expect(grown.status == 200 && grown.json["size"] as? Int == size, "\(grown.text)")
      #expect(try exportSize == size)
      try io("write -P 5 \(size - 65_536) 64k", "read -P 5 \(size - 65_536) 64k")
    }
    _ = ended.wait { $0 ? true : nil }
    load.join()
    try io(
      "read -P 1 6M 2M", "read -P 2 180M 8M", "read -P 3 199M 1M", "read -P 0 200M 49M",
      "read -P 5 \(250 << 20 - 65_536) 64k", "read -P 0 \(600 << 20) 1G")
    try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(folder.path)/now'", seconds: 300)
    try judge("now")
  }

  @Test("whoever is connected keeps the size that was told, and is named until it comes again")
  func connected() throws {
    try make()
    try startClient(
      folder, service.uri("vm"),
      """
      os.mkfifo("leave")
      open("in", "w")
      open("leave").read()
      size = h.get_size()
      h.pwrite(b"\\x07" * 4096, size - 4096)
      assert bytes(h.pread(4096, size - 4096)) == b"\\x07" * 4096
      h.set_strict_mode(0)
      try: h.pread(4096, size); print("read beyond")
      except nbd.Error as e: print("refused", size)
      """)
    #expect(try stale().isEmpty)
    #expect(try grow(to: 300 << 20).status == 200)
    let clients = try stale()
    #expect(clients.count == 1 && clients.first?["size"] as? Int == Self.small)
    #expect(clients.first?["export"] as? String == "vm")
    #expect(try exportSize == 300 << 20)
    try Tool.shell(
      """
      cd '\(folder.path)'; echo > leave
      while kill -0 $(cat client.pid) 2> /dev/null; do sleep 0.02; done
      grep -qx 'refused \(Self.small)' client.out || { cat client.out; exit 1; }
      """)
    try io("read -P 7 \(Self.small - 4_096) 4k", "read -P 0 \(Self.small) 64k")
    try wait("the client is gone") { try stale().isEmpty }
  }

  @Test("what cannot be is refused with what would do, and changes nothing")
  func refusals() throws {
    try make()
    #expect(try grow(to: Self.small).status == 200)
    let smaller = try grow(to: Self.small - Self.clusterBytes)
    #expect(smaller.status == 409 && smaller.code == "shrink-not-supported")
    let odd = try grow(to: Self.small + 512)
    #expect(odd.status == 422 && odd.code == "size-misaligned", "\(odd.text)")
    #expect(odd.json["nearest"] as? [Int] == [Self.small, Self.small + Self.clusterBytes])
    let large = try grow(to: 1 << 52)
    #expect(large.status == 422 && large.code == "size-too-large", "\(large.text)")
    #expect(large.json["limit_bytes"] is Int)
    #expect(try patch("{\"size\":1,\"autostart\":true}").code == "invalid-value")
    #expect(try patch("{\"size\":314572800}", "If-Match: \"999\"").status == 412)
    let job = try service.post(
      "/v1/jobs", "{\"type\":\"resize\",\"device\":\"vm\",\"params\":{\"size\":512}}")
    #expect(job.code == "shrink-not-supported", "\(job.text)")
    let plan = try patch("{\"size\":314572800}", query: "?dry_run=true")
    let words = try #require(plan.json["plan"] as? [String: Any], "\(plan.text)")
    #expect(words["clusters_to_copy"] as? Int == 0)
    #expect(try service.post("/v1/devices/vm/tracking", "{\"space\":\"virtual\"}").status == 201)
    let held = try grow(to: 300 << 20, wait: 0)
    #expect(held.code == "device-busy", "\(held.text)")
    #expect((held.json["holder"] as? [String: Any])?["kind"] as? String == "tracking")
    #expect(try service.delete("/v1/devices/vm/tracking").status == 204)
    #expect(try service.get("/v1/jobs").json["items"] as? [String] == [])
    #expect(try exportSize == Self.small)
  }

  @Test("kill -9 in the middle costs nothing: the job goes on, and meanwhile it is found")
  func killed() throws {
    try make()
    // The next index takes 32 clusters more, and these are the first ones behind it.
    try io("write -P 1 0 1M", "write -P 2 1M 1M", "write -P 3 199M 1M")
    let size = 8 << 30
    let made = try service.post(
      "/v1/jobs",
      "{\"type\":\"resize\",\"device\":\"vm\",\"params\":{\"size\":\(size)},\"limits\":{\"bps\":1}}"
    )
    let id = try #require(made.json["id"] as? String, "\(made.text)")
    try wait("something has been moved") {
      let job = try service.get("/v1/jobs/\(id)")
      return ((job.json["progress"] as? [String: Any])?["done_clusters"] as? Int ?? 0) > 0
    }
    let again = try grow(to: size, wait: 0)
    #expect(again.status == 202 && again.json["id"] as? String == id, "\(again.text)")
    let other = try grow(to: 300 << 20, wait: 0)
    #expect(other.code == "device-busy", "\(other.text)")
    #expect((other.json["holder"] as? [String: Any])?["id"] as? String == id)
    // Of those that were moved, and of those that were not.
    try io("write -P 4 64k 64k", "write -P 5 1984k 64k", "flush")
    service.kill()
    try service.start()
    #expect(try exportSize == Self.small)
    let faster = try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}")
    #expect(faster.status == 200, "\(faster.text)")
    try wait("it has succeeded") {
      let job = try service.get("/v1/jobs/\(id)").json
      #expect(job["interruptions"] as? Int == 1)
      return job["state"] as? String == "succeeded"
    }
    #expect(try exportSize == size)
    try io(
      "read -P 1 0 64k", "read -P 4 64k 64k", "read -P 1 128k 896k", "read -P 2 1M 960k",
      "read -P 5 1984k 64k", "read -P 3 199M 1M", "read -P 0 200M 1G",
      "write -P 6 \(size - 65_536) 64k")
    try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(folder.path)/now'", seconds: 300)
    try judge("now")
  }

  @Test("a disk without a descriptor grows without one, and comes back as large as it is")
  func byList() throws {
    try make()
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try Tool.shell("cd '\(service.images)/vm' && rm DiskDescriptor.xml*")
    #expect(try service.attach("vm", ["vm/root.hds"]).status == 201)
    try io("write -P 1 0 1M")
    #expect(try grow(to: 300 << 20).status == 200)
    service.kill()
    try service.start()
    #expect(try service.get("/v1/devices/vm").json["size"] as? Int == 300 << 20)
    #expect(try exportSize == 300 << 20)
    try io("read -P 1 0 1M", "read -P 0 1M 64M")
    #expect(
      try Tool.shell("ls '\(service.images)/vm' | grep -c xml || :").output == "0\n")
  }

  @Test("a descriptor that a crash has left behind is mended when the disk comes back")
  func behind() throws {
    try make()
    let descriptor = "\(service.images)/vm/DiskDescriptor.xml"
    try Tool.shell("cp '\(descriptor)' '\(folder.path)/old'")
    #expect(try grow(to: 300 << 20).status == 200)
    service.kill()
    try Tool.shell("cp '\(folder.path)/old' '\(descriptor)'")
    try service.start()
    #expect(try exportSize == 300 << 20)
    #expect(
      try Tool.shell("grep -c '<Disk_size>\(300 << 11)<' '\(descriptor)'").output == "1\n")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
  }

  private func wait(_ what: String, until isSo: () throws -> Bool) throws {
    let deadline = Deadline.after(seconds: 300)
    while try !isSo() {
      guard !deadline.hasPassed else { throw Tool.Failure(description: "never: \(what)") }
      poll(nil, 0, 20)
    }
  }
}
