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

  @Test("fio verifies what it wrote, over several connections")
  func fio() throws {
    let live = try LiveServer([("disk", MemoryExport(size: 32 << 20))])
    try Tool.shell(
      "cd '\(live.folder.path)' && fio --name=v --ioengine=nbd --uri='\(live.uri("disk"))' --rw=randrw --bs=4k-256k --size=8M --numjobs=3 --offset_increment=8M --iodepth=16 --verify=crc32c --thread --group_reporting",
      seconds: 120)
  }

  @Test("requests beyond the export, to a read-only one, and unknown ones get their error")
  func errors() throws {
    let live = try LiveServer([
      ("disk", MemoryExport(size: 1 << 20)), ("ro", MemoryExport(size: 1 << 20, isReadOnly: true)),
    ])
    let script = """
      import errno, nbd
      def fails(call, number):
          try: call()
          except nbd.Error as e: assert e.errnum == number, (e, number)
          else: raise AssertionError('no error')
      h = nbd.NBD(); h.set_strict_mode(0); h.connect_uri('\(live.uri("disk"))')
      fails(lambda: h.pread(512, 1 << 20), errno.EINVAL)
      fails(lambda: h.pwrite(b'x' * 512, (1 << 20) - 511), errno.ENOSPC)
      fails(lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO), errno.EOPNOTSUPP)
      fails(lambda: h.pread(512, 0, nbd.CMD_FLAG_FUA | (1 << 9)), errno.EINVAL)
      fails(lambda: h.pread(512, (1 << 64) - 1), errno.EINVAL)
      h.pwrite(b'a' * 1024, 100, nbd.CMD_FLAG_FUA); assert h.pread(1024, 100) == b'a' * 1024
      h.pwrite(b'', 0); assert h.can_multi_conn() and h.can_df()
      h.shutdown()
      r = nbd.NBD(); r.set_strict_mode(0); r.connect_uri('\(live.uri("ro"))')
      assert r.is_read_only(); fails(lambda: r.pwrite(b'x', 0), errno.EPERM); r.pread(10, 0)
      s = nbd.NBD(); s.set_request_structured_replies(False); s.connect_uri('\(live.uri("disk"))')
      assert s.pread(1024, 100) == b'a' * 1024
      n = nbd.NBD()
      try: n.connect_uri('\(live.uri("missing"))'); raise AssertionError('connected')
      except nbd.Error: pass
      """
    try Tool.shell("/usr/bin/python3 - <<'END'\n\(script)\nEND")
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
    var random = SystemRandomNumberGenerator()
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
    let deadline = Deadline.after(seconds: 15)
    while live.server.connectionCount > 0, !deadline.hasPassed { try Tool.shell("sleep 0.05") }
    #expect(live.server.connectionCount == 0)
  }
}
