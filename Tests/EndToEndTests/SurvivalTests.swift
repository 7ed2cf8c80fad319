import Foundation
import TestSupport
import Testing

@Suite("What survives")
struct SurvivalTests {
  /// Writes blocks that carry their number and a version, over several connections, flushing now and
  /// then, and notes what was flushed, until the service is killed. Then, against the next service,
  /// looks whether every block has at least the version that was flushed.
  private static let writer = """
    import nbd, random, struct, sys
    uri, notes, seed, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    block = 4096
    def connect():
        h = nbd.NBD(); h.connect_uri(uri); return h
    if mode == "write":
        rng = random.Random(seed)
        clients = [connect() for _ in range(3)]
        blocks = clients[0].get_size() // block
        # Above those of earlier lives, whose blocks may still be there.
        written, flushed, version = {}, {}, int(sys.argv[5]) * 1_000_000
        begun = False
        try:
            while True:
                h = rng.choice(clients)
                number = rng.randrange(blocks)
                version += 1
                fua = rng.random() < 0.02
                # Noted before: from here on the old content may be gone.
                written[number] = version
                h.pwrite(struct.pack("<QQ", number, version) * (block // 16), number * block,
                         nbd.CMD_FLAG_FUA if fua else 0)
                if fua: flushed[number] = version
                if rng.random() < 0.02:
                    h.flush()
                    flushed.update(written)
                if flushed and not begun:
                    begun = True
                    print("begun", flush=True)
        except nbd.Error:
            pass
        with open(notes, "w") as f:
            for number, latest in written.items():
                f.write(f"{number} {flushed.get(number, 0)} {latest}\\n")
    else:
        h = connect()
        count = 0
        for line in open(notes):
            number, least, latest = map(int, line.split())
            data = h.pread(block, number * block)
            own, version = struct.unpack("<QQ", data[:16])
            assert data == data[:16] * (block // 16), ("torn", number)
            if version == 0: assert own == 0 and least == 0, ("lost", number, least)
            else: assert own == number and least <= version <= latest, (number, own, least, version, latest)
            if least: count += 1
        print("flushed blocks found:", count)
        assert count > 0
    """

  @Test("kill -9 in the middle of writes loses nothing that was flushed", arguments: 1...4)
  func killed(round: Int) throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    let seed = UInt32.random(in: 1...UInt32.max)
    print("seed \(seed)")
    let cluster = [4096, 65536, 1 << 20, 1 << 20][round - 1]
    // The last round writes over a base: copy-on-write is interrupted too.
    #expect(
      try service.create("vm1", sizeBytes: 16 << 20, clusterBytes: cluster).status == 201)
    if round == 4 {
      #expect(try service.delete("/v1/devices/vm1").status == 204)
      try Tool.shell("truncate -s 16M '\(service.images)/base.raw'")
      let body = """
        {"id":"vm1","deltas":[{"path":"base.raw","format":"raw"},{"path":"vm1/root.hds"}],"export":{"name":"vm1"}}
        """
      #expect(try service.post("/v1/devices", body).status == 201)
    }
    try Tool.shell("cat > '\(folder.path)/writer.py' <<'END'\n\(Self.writer)\nEND")
    let notes = "\(folder.path)/notes"
    for life in 1...3 {
      try Tool.shell(
        """
        cd '\(folder.path)'; rm -f begun notes
        /usr/bin/python3 writer.py '\(service.uri("vm1"))' notes \(seed) write \(life) > begun 2> errors & writer=$!
        until [ -s begun ]; do kill -0 $writer || { cat errors; exit 1; }; read -t 0.02 < <(:); done
        # Long enough for some hundred writes, short enough to meet every kind of moment.
        timeout 0.\(life * 2) tail -f /dev/null || true
        kill -KILL \(service.process)
        wait $writer
        """)
      _ = try service.waitForExit()
      try service.start()
      let device = try service.get("/v1/devices/vm1").json
      #expect(device["state"] as? String == "online")
      #expect((device["repairs"] as? [String])?.isEmpty == false)
      let found = try Tool.shell(
        "cd '\(folder.path)' && /usr/bin/python3 writer.py '\(service.uri("vm1"))' notes \(seed) check"
      )
      print(found.output)
      // What the next life writes begins from its own notes.
      try Tool.shell("cp '\(notes)' '\(folder.path)/notes.\(life)'")
    }
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    try Tool.shell("qemu-img check -f parallels '\(service.images)/vm1/root.hds'")
  }

  @Test("Devices, exports, labels and suspension come back after SIGTERM and after SIGKILL")
  func restart() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    func create(_ id: String, _ more: String) throws {
      let reply = try service.create(id, sizeBytes: 8_388_608, more)
      #expect(reply.status == 201, "\(reply.text)")
    }
    try create("stays", ",\"labels\":{\"tenant\":\"a\"}")
    try create("held", ",\"suspended\":true")
    try create("once", ",\"autostart\":false")
    try create("prohibited", "")
    let hold = "{\"noresume\":true,\"suspended\":true,\"holder\":\"mover\"}"
    let prohibited = try service.patch("/v1/devices/prohibited", hold).json
    #expect(
      try service.post("/v1/exports", "{\"name\":\"ro\",\"device\":\"stays\",\"readonly\":true}")
        .status
        == 201)
    let before = try service.get("/v1/devices/stays").json
    for signal in [SIGTERM, SIGKILL] {
      let status = try service.end(by: signal)
      #expect(status == (signal == SIGTERM ? 0 : 128 + SIGKILL))
      try service.start()
      let after = try service.get("/v1/devices/stays").json
      #expect(after["uuid"] as? String == before["uuid"] as? String)
      #expect((after["labels"] as? [String: String]) == ["tenant": "a"])
      #expect((after["revision"] as? Int ?? 0) > (before["revision"] as? Int ?? 0))
      #expect((after["exports"] as? [Any])?.count == 2)
      #expect((after["repairs"] as? [String])?.isEmpty == (signal == SIGTERM))
      #expect(try service.get("/v1/devices/held").json["state"] as? String == "suspended")
      let held = try service.get("/v1/devices/prohibited").json
      #expect(held["state"] as? String == "suspended" && held["noresume"] as? Bool == true)
      #expect(
        held["suspension"] as? [String: String] == prohibited["suspension"] as? [String: String])
      #expect(
        try service.patch("/v1/devices/prohibited", "{\"suspended\":false}").code
          == "resume-prohibited")
      #expect(try service.get("/v1/devices/once").code == "device-not-found")
      #expect(try service.attach("stays", ["stays/root.hds"]).code == "device-exists")
      try Tool.shell("nbdinfo '\(service.uri("ro"))' | grep -q 'is_read_only: true'")
      // The one that was not to come back is attached by hand. After SIGKILL its image carries our
      // own mark: no repair has to be asked for.
      #expect(
        try service.attach("once", ["once/root.hds"], ",\"autostart\":false").status == 201)
    }
    #expect(try service.delete("/v1/devices/stays").status == 204)
    service.kill()
    try service.start()
    #expect(try service.get("/v1/devices/stays").status == 404)
  }

  @Test("A device whose image is gone is kept as failed, and the others come back")
  func failed() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    for id in ["gone", "here"] {
      _ = try service.create(id, sizeBytes: 8_388_608)
    }
    service.kill()
    try Tool.shell("mv '\(service.images)/gone' '\(service.images)/away'")
    try service.start()
    let gone = try service.get("/v1/devices/gone").json
    #expect(gone["state"] as? String == "failed")
    let condition = (gone["conditions"] as? [[String: Any]])?.first
    #expect(condition?["reason"] as? String == "image-not-found")
    #expect(try service.get("/v1/devices/here").json["state"] as? String == "online")
    #expect(try service.get("/v1/devices/gone/map").code == "device-failed")
    #expect(try service.attach("gone", ["away/root.hds"]).code == "device-exists")
    #expect(try service.delete("/v1/devices/gone").status == 204)
    // Its mark is nobody's any more: repair has to be asked for.
    #expect(try service.attach("gone", ["away/root.hds"]).code == "image-unclean")
    #expect(try service.attach("gone", ["away/root.hds"], ",\"repair\":\"safe\"").status == 201)
  }

  @Test("An image that somebody else left unclean is not repaired without being asked")
  func unclean() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    _ = try service.create("vm1", sizeBytes: 8_388_608)
    #expect(try service.end() == 0)
    // Closed by us, then marked by another tool that died.
    let image = "\(service.images)/vm1/root.hds"
    try Tool.shell(
      "printf '\\x59\\x6e\\x6f\\x74' | dd of='\(image)' bs=1 seek=44 conv=notrunc status=none")
    let before = try Tool.shell("sha256sum < '\(image)'").output
    try service.start()
    let device = try service.get("/v1/devices/vm1").json
    #expect(device["state"] as? String == "failed")
    let condition = (device["conditions"] as? [[String: Any]])?.first
    #expect(condition?["reason"] as? String == "image-unclean")
    #expect(try Tool.shell("sha256sum < '\(image)'").output == before)
  }

  @Test("SIGTERM ends it with 0 while clients are idle, busy, half-open and held")
  func stoppedUnderLoad() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    for id in ["idle", "busy", "held"] {
      _ = try service.create(id, sizeBytes: 67_108_864)
    }
    #expect(try service.patch("/v1/devices/held", "{\"suspended\":true}").status == 200)
    try Tool.shell(
      """
      cd '\(folder.path)' && cat > client.py <<'END'
      import nbd, socket, sys, threading
      base = sys.argv[1]
      def uri(name): return base.replace("NAME", name)
      idle = nbd.NBD(); idle.connect_uri(uri("idle"))
      half = socket.socket(socket.AF_UNIX); half.connect(sys.argv[2]); half.recv(18)
      held = nbd.NBD(); held.connect_uri(uri("held"))
      def wait_held():
          try: held.pread(512, 0); print("held: served")
          except nbd.Error as e: print("held:", e.errno)
      threading.Thread(target=wait_held).start()
      def busy(n):
          h = nbd.NBD(); h.connect_uri(uri("busy"))
          data = bytes([n]) * 65536
          i = 0
          try:
              while True:
                  h.pwrite(data, (i * 4 + n) * 65536 % (64 << 20)); i += 1
                  if i == 50 and n == 0: print("begun", flush=True)
          except nbd.Error as e: print("busy:", e.errno)
      for n in range(4): threading.Thread(target=busy, args=(n,)).start()
      END
      /usr/bin/python3 client.py '\(service.uri("NAME"))' '\(service.nbdSocket)' > clients 2>&1 & 
      until grep -q begun clients; do kill -0 $! || exit 1; sleep 0.05; done
      echo $! > client.pid
      """)
    #expect(try service.end(seconds: 35) == 0)
    try Tool.shell(
      "cd '\(folder.path)'; tail --pid=$(cat client.pid) -s 0.02 -f /dev/null")
    let clients = try Tool.shell("cat '\(folder.path)/clients'").output
    // No answer, so that who comes back asks again.
    #expect(
      clients.contains("held:") && !clients.contains("ESHUTDOWN") && !clients.contains("served"),
      "\(clients)")
    for id in ["idle", "busy", "held"] {
      let image = "\(service.images)/\(id)/root.hds"
      try Tool.shell("qemu-img check -f parallels '\(image)'")
      // Closed: the in-use mark is 0.
      #expect(try Tool.shell("xxd -s 44 -l 4 -p '\(image)'").output == "00000000\n")
    }
    #expect(try Tool.shell("ls '\(folder.path)'").output.contains("sock") == false)
  }

  @Test("A socket that a killed service left is replaced; one that is answered at is not")
  func sockets() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    service.kill()
    try Tool.shell("test -S '\(service.httpSocket)' && test -S '\(service.nbdSocket)'")
    try service.start()
    #expect(try service.get("/healthz").status == 200)
    let other = try Tool.shell(
      """
      mkdir '\(folder.path)/other'
      '\(RunningService.program)' serve --state-dir '\(folder.path)/other' --root main='\(service.images)' \
        --http-socket '\(service.httpSocket)' --http-listen none --nbd-socket none --nbd-listen none
      """, check: false, seconds: 20)
    #expect(other.status == 1)
    #expect(other.output.contains("cannot listen"), "\(other.output)")
    let same = try Tool.shell(
      """
      '\(RunningService.program)' serve --state-dir '\(folder.path)/state' --root main='\(service.images)' \
        --http-socket '\(folder.path)/x.sock' --http-listen none --nbd-socket none --nbd-listen none
      """, check: false, seconds: 20)
    #expect(same.status == 1)
    #expect(same.output.contains("another ploopd"), "\(same.output)")
    #expect(try service.get("/healthz").status == 200)
  }
}
