import Glibc
import PloopIO
import PloopNBD
import TestSupport
import Testing

@Suite("The NBD server")
struct ServerTests {
  @Test("real clients list, describe and copy", arguments: [false, true])
  func realClients(isSlow: Bool) throws {
    let disk = MemoryExport(size: 16 << 20, isSlow: isSlow)
    let live = try LiveServer([("disk", disk), ("other", MemoryExport(size: 1 << 20))])
    let list = try Tool.shell("nbdinfo --list --json '\(live.uri(""))'").output
    #expect(list.contains("\"export-size\": 16777216") && list.contains("\"other\""))
    let source = "\(live.folder.path)/source"
    try Tool.shell(
      "head -c 3000000 /dev/urandom > '\(source)' && truncate -s 16M '\(source)' && nbdcopy '\(source)' '\(live.uri("disk"))' && nbdcopy '\(live.uri("disk"))' '\(source).back' && cmp '\(source)' '\(source).back'"
    )
    let map = try Tool.shell("nbdinfo --map '\(live.uri("disk"))'").output
    #expect(map.contains("hole,zero") && map.contains("data"))
    try Tool.shell(
      "qemu-img compare -f raw -F raw '\(source)' '\(live.uri("disk"))' && qemu-io -f raw -c 'write -P 7 5000 70000' -c 'read -P 7 5000 70000' -c 'write -z 0 65536' -c flush '\(live.uri("disk"))'"
    )
  }

  @Test("fio verifies what it wrote, over several connections", arguments: [false, true])
  func fio(isSlow: Bool) throws {
    let live = try LiveServer([("disk", MemoryExport(size: 32 << 20, isSlow: isSlow))])
    try Tool.shell(
      "cd '\(live.folder.path)' && fio --name=v --ioengine=nbd --uri='\(live.uri("disk"))' --rw=randrw --bs=4k-256k --size=8M --numjobs=3 --offset_increment=8M --iodepth=16 --verify=crc32c --thread --group_reporting",
      seconds: 120)
  }

  @Test(
    "whoever observes hears of each client that comes to an export and leaves it, and of no other")
  func observer() throws {
    let heard = Monitor<[String]>([])
    let live = try LiveServer([("disk", MemoryExport(size: 4096))]) { export, isConnected in
      let name = String(decoding: export, as: UTF8.self)
      heard.update { $0.append("\(name) \(isConnected ? "connected" : "gone")") }
    }
    func hears(_ wanted: [String]) -> Bool {
      heard.wait(until: .after(seconds: 120)) { $0 == wanted ? true : nil } ?? false
    }
    // Who only asks is no client of an export, and neither is who asks for one that there is not.
    try Tool.shell("nbdinfo --list '\(live.uri(""))' > '\(live.folder.path)/list'")
    let refused = try Tool.shell("nbdinfo --size '\(live.uri("none"))'", check: false)
    #expect(refused.status != 0 && heard.withLock { $0 } == [])
    var client: RawClient? = try live.client(of: "disk")
    #expect(hears(["disk connected"]))
    #expect(live.server.clients(of: Array("disk".utf8)).count == 1)
    client?.halfClose()
    #expect(hears(["disk connected", "disk gone"]))
    #expect(live.server.clients(of: Array("disk".utf8)).isEmpty)
    client = nil
  }

  @Test("nbdcopy copies over several TCP connections and keeps holes")
  func copyOverTCP() throws {
    let live = try LiveServer([("disk", MemoryExport(size: 16 << 20))])
    try Tool.shell(
      """
      cd '\(live.folder.path)' && uri=nbd://127.0.0.1:\(live.port)/disk && truncate -s 16M in &&
      dd if=/dev/urandom of=in bs=64k seek=100 count=20 conv=notrunc status=none &&
      nbdcopy --connections=4 --destination-is-zero in "$uri" &&
      nbdcopy --connections=4 "$uri" out && cmp in out && test $(du -k out | cut -f1) -lt 2000
      """)
  }

  @Test("qemu and nbdinfo read the same allocation map")
  func maps() throws {
    let live = try LiveServer([("disk", MemoryExport(size: 1 << 20))])
    try live.python(
      "h = nbd.NBD(); h.connect_uri(uri); h.pwrite(b'x' * 131072, 196608); h.shutdown()",
      uri: "disk")
    let qemu = try Tool.shell("qemu-img map -f raw --output=json '\(live.uri("disk"))'").output
    for extent in [
      #""start": 0, "length": 196608, "depth": 0, "present": true, "zero": true, "data": false"#,
      #""start": 196608, "length": 131072, "depth": 0, "present": true, "zero": false, "data": true"#,
      #""start": 327680, "length": 720896, "depth": 0, "present": true, "zero": true, "data": false"#,
    ] { #expect(qemu.contains(extent), "\(qemu)") }
    let map = try Tool.shell("nbdinfo --map '\(live.uri("disk"))'").output
      .split(separator: "\n").map { $0.split(separator: " ").prefix(3).joined(separator: " ") }
    #expect(map == ["0 196608 3", "196608 131072 0", "327680 720896 3"])
    let totals = try Tool.shell("nbdinfo --map --totals '\(live.uri("disk"))'").output
    #expect(totals.contains("12.5%") && totals.contains("87.5%"))
  }

  @Test("qemu-io's writes, zeroes, discards and flushes are carried out")
  func qemuIO() throws {
    let disk = MemoryExport(size: 1 << 20)
    let live = try LiveServer([("disk", disk)])
    try Tool.shell(
      "qemu-io -f raw -c 'write -f -P 7 5000 70000' -c 'aio_write -P 8 200000 1000' -c aio_flush -c 'write -z -u 5120 512' -c 'discard 131072 65536' -c flush -c 'read -P 7 5632 60000' -c 'read -P 0 5120 512' -c 'read -P 8 200000 1000' '\(live.uri("disk"))'"
    )
    let calls = disk.calls.withLock { $0 }
    #expect(calls.contains("trim 131072 65536") && calls.contains("flush"))
    #expect(calls.contains("commit"))
  }

  @Test("nbdfuse shows the disk as a file that can be written and read")
  func fuse() throws {
    let disk = MemoryExport(size: 1 << 20)
    let live = try LiveServer([("disk", disk)])
    // nbdfuse unmounts when it is told to end; told so in time also when something hangs.
    try Tool.shell(
      """
      cd '\(live.folder.path)' && mkdir mnt && head -c 100000 /dev/urandom > in
      timeout 40 nbdfuse mnt '\(live.uri("disk"))' & fuse=$!
      for i in $(seq 400); do test -e mnt/nbd && break; sleep 0.02; done
      dd if=in of=mnt/nbd conv=notrunc,fsync bs=10000 status=none &&
      cmp -n 100000 in mnt/nbd && test $(stat -c %s mnt/nbd) = 1048576; result=$?
      kill $fuse; wait $fuse; exit $result
      """)
    #expect(disk.calls.withLock { $0.contains("flush") })
  }

  @Test("libnbd's strictest client finds nothing to object to")
  func libnbd() throws {
    let live = try LiveServer([
      ("disk", MemoryExport(size: 1 << 20)), ("ro", MemoryExport(size: 1 << 20, isReadOnly: true)),
    ])
    try live.python(
      """
      h = nbd.NBD(); h.set_full_info(True); h.add_meta_context('base:allocation'); h.connect_uri(uri)
      assert h.can_multi_conn() and h.can_df() and h.can_fast_zero() and h.can_cache()
      assert h.get_block_size(nbd.SIZE_MAXIMUM) == 64 << 20 and h.get_block_size(nbd.SIZE_MINIMUM) == 1
      assert h.get_canonical_export_name() == 'disk' and h.get_export_description() == 'in memory'
      h.pwrite(b'a' * 1024, 100, nbd.CMD_FLAG_FUA); assert h.pread(1024, 100) == b'a' * 1024
      fails(lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO), errno.EOPNOTSUPP)
      seen = []; h.block_status(1 << 20, 0, lambda name, at, extents, err: seen.append(extents))
      assert seen == [[65536, 0, 983040, 3]], seen
      h.flush(); h.trim(512, 0); h.cache(512, 0); h.shutdown()
      s = nbd.NBD(); s.set_request_structured_replies(False); s.connect_uri(uri)
      assert s.pread(1024, 100) == b'a' * 1024 and not s.can_df(); s.shutdown()
      """, uri: "disk")
  }

  @Test("TCP connections send at once and notice a dead peer")
  func socketOptions() throws {
    let live = try LiveServer([("disk", MemoryExport(size: 4096))])
    let tcp = try RawClient(port: live.port)
    #expect(tcp.enter("disk"))
    // The server's end is in this process: the socket whose own port is the server's.
    let ends = (3..<1024).compactMap { number -> [Int32]? in
      guard localPort(of: Int32(number)) == live.port,
        socketOption(Int32(number), SOL_SOCKET, SO_ACCEPTCONN) == 0
      else { return nil }
      return [
        socketOption(Int32(number), Int32(IPPROTO_TCP), TCP_NODELAY),
        socketOption(Int32(number), SOL_SOCKET, SO_KEEPALIVE),
      ]
    }
    #expect(ends.count == 1 && ends.allSatisfy { $0.allSatisfy { $0 != 0 } })
  }

  private func localPort(of number: Int32) -> UInt16? {
    var address = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let known = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(number, $0, &size) }
    }
    guard known == 0, address.sin_family == sa_family_t(AF_INET) else { return nil }
    return UInt16(bigEndian: address.sin_port)
  }

  private func socketOption(_ number: Int32, _ level: Int32, _ name: Int32) -> Int32 {
    var value: Int32 = -1
    var size = socklen_t(MemoryLayout<Int32>.size)
    getsockopt(number, level, name, &value, &size)
    return value
  }

  @Test("hostile clients disturb nobody")
  func hostile() throws {
    var limits = Limits()
    limits.handshakeSeconds = 1
    let live = try LiveServer([("disk", MemoryExport(size: 4 << 20, isSlow: true))], limits: limits)
    let magic = Array("IHAVEOPT".utf8)
    let go =
      magic + big(UInt32(7)) + big(UInt32(10)) + big(UInt32(4)) + Array("disk".utf8) + [0, 0]
    let ready = big(UInt32(3)) + go
    func request(_ type: UInt16, _ offset: UInt64, _ length: UInt32, flags: UInt16 = 0) -> [UInt8] {
      big(UInt32(0x2560_9513)) + big(flags) + big(type) + big(UInt64(7)) + big(offset) + big(length)
    }
    let reads = (0..<500).flatMap { _ in request(0, 0, 1 << 20) }
    var random = SeededGenerator.fromEnvironment("hostile clients")
    let noise = (0..<5000).map { _ in UInt8.random(in: 0...255, using: &random) }
    let attacks: [[UInt8]] = [
      [], [0], big(UInt32(0xFFFF_FFFF)), big(UInt32(3)) + Array("GARBAGE!".utf8) + noise, noise,
      big(UInt32(3)) + magic + big(UInt32(6)) + big(UInt32.max),
      big(UInt32(3)) + magic + big(UInt32(1)) + big(UInt32(5000)),
      big(UInt32(3)) + magic + big(UInt32(7)) + big(UInt32(6)) + big(UInt32(0xFFFF_FFF0)) + [0, 0],
      big(UInt32(3)) + (0..<2000).flatMap { _ in magic + big(UInt32(3)) + big(UInt32(0)) },
      big(UInt32(3)) + magic + big(UInt32(9)) + big(UInt32(12)) + big(UInt32(0)) + big(UInt32.max)
        + big(UInt32(1)),
      ready, ready + noise, ready + [0, 0, 0, 0] + [UInt8](repeating: 0, count: 28),
      ready + request(1, 0, 1 << 20), ready + request(1, 0, UInt32.max) + noise, ready + reads,
      ready + request(77, 0, 0) + request(0, 0, 512, flags: 0xFFFF) + request(2, 0, 0),
      ready + request(0, UInt64.max, UInt32.max) + request(7, 0, 0) + request(4, 0, UInt32.max),
    ]
    #expect(attacks.count == 18)
    let canary =
      "nbdcopy '\(live.uri("disk"))' '\(live.folder.path)/out' && test $(stat -c %s '\(live.folder.path)/out') = 4194304"
    for attack in attacks {
      let client = try RawClient(live.path)
      client.send(attack)
      let half = try RawClient(live.path)
      half.send(attack)
      half.halfClose()
      do { try RawClient(live.path).send(attack) }
      try Tool.shell(canary)
    }
    try Tool.shell(canary)
    #expect(becomes { live.server.connectionCount == 0 })
  }
}
