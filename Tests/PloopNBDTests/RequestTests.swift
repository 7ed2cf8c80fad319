import PloopIO
import PloopNBD
import TestSupport
import Testing

@Suite("NBD requests")
struct RequestTests {
  private static let size = 1 << 20
  private static let cluster = MemoryExport.clusterBytes

  private enum Command {
    static let (read, write, disconnect, flush): (UInt16, UInt16, UInt16, UInt16) = (0, 1, 2, 3)
    static let (trim, cache, zero, status): (UInt16, UInt16, UInt16, UInt16) = (4, 5, 6, 7)
  }

  private let disk: MemoryExport
  private let live: LiveServer

  init() throws {
    disk = MemoryExport(size: Self.size)
    live = try LiveServer([
      ("disk", disk), ("ro", MemoryExport(size: Self.size, isReadOnly: true)),
    ])
  }

  private func noise(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) }
  }

  @Test(
    "ranges behind the end get ENOSPC for what writes and EINVAL for the rest",
    arguments: RawClient.Style.allCases)
  func beyondTheEnd(style: RawClient.Style) throws {
    let client = try live.client(of: "disk", style: style, status: style != .simple)
    let end = UInt64(Self.size)
    let ranges: [(UInt64, UInt32)] = [
      (end, 512), (end - 511, 512), (.max, 512), (.max - 511, 512), (0, UInt32(Self.size) + 1),
    ]
    for (offset, length) in ranges {
      for type in [Command.read, Command.trim, Command.cache, Command.status] {
        #expect(client.call(type, offset: offset, length: length).error == 22)
      }
      #expect(client.call(Command.zero, offset: offset, length: length).error == 28)
      let answer = client.call(
        Command.write, offset: offset, length: length, payload: noise(Int(length)))
      #expect(answer.error == 28)
    }
    #expect(disk.calls.withLock { $0.isEmpty } && client.call(Command.flush).error == 0)
  }

  @Test(
    "a read that crosses the end says where the end is",
    arguments: [RawClient.Style.structured, .extended])
  func errorOffset(style: RawClient.Style) throws {
    let client = try live.client(of: "disk", style: style)
    let crossing = client.call(Command.read, offset: UInt64(Self.size) - 100, length: 512)
    #expect(crossing.error == 22 && crossing.errorOffset == UInt64(Self.size))
    let behind = client.call(Command.read, offset: UInt64(Self.size) + 100, length: 512)
    #expect(behind.error == 22 && behind.errorOffset == nil)
  }

  @Test(
    "a read that fails at a known place says so, others say only why",
    arguments: RawClient.Style.allCases)
  func failingRead(style: RawClient.Style) throws {
    let structured = style != .simple
    let slow = MemoryExport(size: Self.size, isSlow: true)
    let failing = try LiveServer([("disk", slow)])
    let client = try failing.client(of: "disk", style: style)
    slow.fault.withLock { $0 = NBDError(.io, "cluster 3 is unreadable", at: 200_000) }
    let read = client.call(Command.read, offset: 65536, length: 262_144)
    #expect(read.error == 5 && read.isStructured == structured)
    if structured {
      #expect(read.errorOffset == 200_000 && read.words == "cluster 3 is unreadable")
      #expect(read.chunks.count == 1)
    }
    let elsewhere = client.call(Command.read, offset: 0, length: 512)
    #expect(elsewhere.error == 5 && elsewhere.errorOffset == nil)
    let write = client.call(
      Command.write, offset: 65536, length: 262_144, payload: noise(262_144))
    #expect(write.error == 5 && write.errorOffset == nil)
    slow.fault.withLock { $0 = nil }
    #expect(client.call(Command.read, length: 512).error == 0)
  }

  @Test("libnbd takes the place of a failed read as one inside its request")
  func failingReadSeenByLibnbd() throws {
    try live.python(
      """
      h = nbd.NBD(); h.set_strict_mode(0); h.connect_uri(uri); at = []
      def chunk(data, offset, status, err):
          if status == nbd.READ_ERROR: at.append((offset, err.value))
      fails(lambda: h.pread_structured(1024, (1 << 20) - 512, chunk), errno.EINVAL)
      assert at == [(1 << 20, errno.EINVAL)], at
      h.pread(512, 0); h.shutdown()
      """, uri: "disk")
  }

  @Test("errors have words when replies are structured, and their number alone when not")
  func errorWords() throws {
    for style in RawClient.Style.allCases {
      let structured = style != .simple
      let client = try live.client(of: "disk", style: style)
      for type: UInt16 in [Command.read, Command.status, 77] {
        let answer = client.call(type, offset: 1 << 40, length: 1)
        #expect(answer.error == 22 && answer.isStructured == structured)
        #expect(answer.words.isEmpty != structured && answer.cookie == 7)
      }
    }
  }

  @Test(
    "a read-only export refuses what writes with EPERM and drains the payload",
    arguments: RawClient.Style.allCases)
  func readOnly(style: RawClient.Style) throws {
    let client = try live.client(of: "ro", style: style)
    #expect(client.call(Command.write, length: 70_000, payload: noise(70_000)).error == 1)
    #expect(client.call(Command.trim, length: 512).error == 1)
    #expect(client.call(Command.zero, length: 512).error == 1)
    #expect(
      client.call(Command.flush).error == 0 && client.call(Command.cache, length: 1).error == 0)
    #expect(client.call(Command.read, length: 512, flags: 1).error == 0)
  }

  @Test(
    "unknown commands, RESIZE among them, get EINVAL and the connection stays",
    arguments: RawClient.Style.allCases)
  func unknownCommands(style: RawClient.Style) throws {
    let client = try live.client(of: "disk", style: style)
    for type: UInt16 in [8, 9, 77, .max] {
      #expect(client.call(type, offset: 4096, length: 4096).error == 22)
    }
    #expect(client.call(Command.read, length: 512).error == 0)
  }

  @Test("a command takes its own flags and FUA, and refuses all others")
  func flags() throws {
    let allowed: [UInt16: UInt16] = [
      Command.read: 1 | 4, Command.write: 1, Command.flush: 1, Command.trim: 1, Command.cache: 1,
      Command.zero: 1 | 2 | 16, Command.status: 1 | 8,
    ]
    let client = try live.client(of: "disk", status: true)
    for (type, known) in allowed {
      for bit in 0..<16 {
        let flag: UInt16 = 1 << bit
        let answer = client.call(
          type, length: 512, flags: flag, payload: type == Command.write ? noise(512) : [])
        // FAST_ZERO is known, and this disk has no fast way.
        let fine: UInt32 = type == Command.zero && flag == 16 ? 95 : 0
        #expect(answer.error == (known & flag == 0 ? 22 : fine), "command \(type), flag \(flag)")
      }
    }
    let simple = try live.client(of: "disk", style: .simple)
    #expect(simple.call(Command.read, length: 512, flags: 4).error == 22)
  }

  @Test(
    "FUA and NO_HOLE reach the disk", arguments: RawClient.Style.allCases)
  func durable(style: RawClient.Style) throws {
    let client = try live.client(of: "disk", style: style)
    #expect(
      client.call(Command.write, offset: 1, length: 3, flags: 1, payload: [1, 2, 3]).error == 0)
    #expect(client.call(Command.trim, offset: 0, length: 65536, flags: 1).error == 0)
    #expect(client.call(Command.zero, offset: 0, length: 512, flags: 1 | 2).error == 0)
    #expect(client.call(Command.zero, offset: 0, length: 512).error == 0)
    #expect(client.call(Command.flush, offset: 99, length: 99).error == 0)
    #expect(
      disk.calls.withLock { $0 } == [
        "commit", "trim 0 65536 durable", "zero 0 512 keep durable", "zero 0 512",
        "flush",
      ])
  }

  @Test(
    "ENOTSUP is for FAST_ZERO and EOVERFLOW for reads; elsewhere they are EINVAL",
    arguments: [RawClient.Style.structured, .extended])
  func errorNumbers(style: RawClient.Style) throws {
    let slow = MemoryExport(size: Self.size, isSlow: true)
    let live = try LiveServer([("disk", slow)])
    let client = try live.client(of: "disk", style: style)
    let kinds: [(NBDError.Kind, read: UInt32, zero: UInt32, fast: UInt32)] = [
      (.notPermitted, 1, 1, 1), (.io, 5, 5, 5), (.invalid, 22, 22, 22), (.noSpace, 28, 28, 28),
      (.overflow, 75, 22, 22), (.notSupported, 22, 22, 95), (.shuttingDown, 108, 108, 108),
    ]
    for kind in kinds {
      slow.fault.withLock { $0 = NBDError(kind.0, "as told") }
      #expect(client.call(Command.read, length: 512).error == kind.read)
      #expect(client.call(Command.zero, length: 512).error == kind.zero)
      #expect(client.call(Command.zero, length: 512, flags: 16).error == kind.fast)
    }
  }

  @Test("requests of no bytes succeed without asking the disk, a status of none is EINVAL")
  func zeroLength() throws {
    for style in RawClient.Style.allCases {
      let structured = style != .simple
      let client = try live.client(of: "disk", style: style)
      for type in [Command.read, Command.write, Command.trim, Command.cache, Command.zero] {
        for offset in [0, UInt64(Self.size)] {
          let answer = client.call(type, offset: offset)
          #expect(answer.error == 0)
          if type == Command.read { #expect(answer.chunks.map(\.type) == (structured ? [0] : [])) }
        }
        #expect(client.call(Command.read, offset: UInt64(Self.size) + 1).error == 22)
      }
    }
    let client = try live.client(of: "disk", status: true)
    #expect(client.call(Command.status).error == 22)
    #expect(disk.calls.withLock { $0.isEmpty })
  }

  @Test(
    "reads and writes of any alignment are served", arguments: RawClient.Style.allCases)
  func unaligned(style: RawClient.Style) throws {
    let client = try live.client(of: "disk", style: style)
    var model = [UInt8](repeating: 0, count: Self.size)
    for (offset, count) in [(1, 1), (511, 3), (65535, 2), (100_001, 70_003), (3, 262_145)] {
      let bytes = noise(count)
      model.replaceSubrange(offset..<offset + count, with: bytes)
      let answer = client.call(
        Command.write, offset: UInt64(offset), length: UInt32(count), payload: bytes)
      #expect(answer.error == 0)
      let back = client.call(Command.read, offset: UInt64(offset), length: UInt32(count))
      #expect(back.content(at: offset, count) == bytes)
    }
    #expect(disk.content(0, Self.size) == model)
  }

  @Test(
    "a sparse read has its holes as chunks that cover the request once", arguments: [false, true])
  func sparseRead(isSlow: Bool) throws {
    let disk = MemoryExport(size: Self.size, isSlow: isSlow)
    let live = try LiveServer([("disk", disk)])
    let client = try live.client(of: "disk")
    let cluster = Self.cluster
    let bytes = noise(cluster)
    for index in [1, 2, 5] {
      let written = client.call(
        Command.write, offset: UInt64(index * cluster), length: UInt32(cluster), payload: bytes)
      #expect(written.error == 0)
    }
    let (start, count) = (cluster / 2, 7 * cluster)
    let answer = client.call(Command.read, offset: UInt64(start), length: UInt32(count))
    // A large read is answered in parts of four clusters where it can be answered at once.
    let types: [UInt16] = isSlow ? [2, 1, 2, 1, 2] : [2, 1, 2, 2, 1, 2]
    #expect(answer.error == 0 && answer.chunks.map(\.type) == types)
    #expect(
      answer.chunks.map(\.isDone) == types.indices.map { $0 == types.count - 1 })
    var position = start
    for chunk in answer.chunks {
      #expect(number(chunk.payload[..<8], as: Int.self) == position)
      let isHole = chunk.type == 2
      let length = isHole ? number(chunk.payload[8...], as: Int.self) : chunk.payload.count - 8
      let held = disk.content(position, length)
      #expect(isHole ? held.allSatisfy { $0 == 0 } : held == Array(chunk.payload[8...]))
      position += length
    }
    #expect(position == start + count)
    let whole = client.call(
      Command.read, offset: UInt64(start), length: UInt32(count), flags: 4)
    #expect(whole.chunks.map(\.type) == [1])
    #expect(
      whole.chunks.first?.payload.dropFirst(8).elementsEqual(disk.content(start, count)) == true)
  }

  @Test(
    "a status merges, stays inside the request, and REQ_ONE gets one extent",
    arguments: [RawClient.Style.structured, .extended])
  func status(style: RawClient.Style) throws {
    let client = try live.client(of: "disk", style: style, status: true)
    let cluster = UInt32(Self.cluster)
    let bytes = noise(Self.cluster)
    for index: UInt64 in [1, 2] {
      let written = client.call(
        Command.write, offset: index * UInt64(cluster), length: cluster, payload: bytes)
      #expect(written.error == 0)
    }
    func extents(_ flags: UInt16) -> [[UInt64]] {
      let answer = client.call(Command.status, length: 5 * cluster - 512, flags: flags)
      guard let status = answer.chunks.first?.status, answer.chunks.count == 1 else { return [] }
      #expect(status.id == 1)
      return status.runs
    }
    let long = UInt64(cluster)
    #expect(extents(0) == [[long, 3], [2 * long, 0], [2 * long - 512, 3]])
    #expect(extents(8) == [[long, 3]])
  }

  @Test(
    "a status has a chunk for each context that was selected, in the numbers of its selection",
    arguments: [RawClient.Style.structured, .extended])
  func contexts(style: RawClient.Style) throws {
    let disk = MemoryExport(size: 4 << 20, bitmaps: ["cp-1", "cp-2"])
    let live = try LiveServer([("disk", disk)])
    let cluster = UInt64(Self.cluster)
    for (selected, wanted): ([String], [UInt32: [[UInt64]]]) in [
      (["qemu:dirty-bitmap:cp-2"], [1: [[cluster, 0], [cluster, 1], [512, 0]]]),
      (
        ["qemu:allocation-depth", "qemu:dirty-bitmap:none", "base:allocation"],
        [
          1: [[cluster, 3], [cluster, 0], [512, 3]], 2: [[cluster, 0], [cluster, 7], [512, 0]],
        ]
      ),
    ] {
      let client = try live.client(of: "disk", style: style, contexts: selected)
      #expect(
        client.call(
          Command.write, offset: cluster, length: cluster, payload: noise(Self.cluster)
        ).error == 0)
      let answer = client.call(Command.status, length: 2 * cluster + 512)
      var found: [UInt32: [[UInt64]]] = [:]
      for chunk in answer.chunks {
        let status = try #require(chunk.status)
        found[status.id] = status.runs
      }
      #expect(found == wanted, "\(selected)")
    }
  }

  @Test("payloads beyond the limit are refused and drained, those up to it are carried out")
  func payloadLimit() throws {
    var limits = Limits()
    limits.payloadBytes = 1 << 20
    let disk = MemoryExport(size: 4 << 20)
    let live = try LiveServer([("disk", disk)], limits: limits)
    let structured = try live.client(of: "disk")
    let simple = try live.client(of: "disk", style: .simple)
    for client in [structured, simple] {
      let tooLong = client.call(
        Command.write, length: (1 << 20) + 1, payload: noise((1 << 20) + 1))
      #expect(tooLong.error == 22)
      #expect(client.call(Command.write, length: 1 << 20, payload: noise(1 << 20)).error == 0)
    }
    #expect(structured.call(Command.read, length: (1 << 20) + 1).error == 75)
    #expect(structured.call(Command.read, length: (1 << 20) + 1, flags: 4).error == 75)
    #expect(simple.call(Command.read, length: (1 << 20) + 1).error == 22)
    #expect(structured.call(Command.read, length: 1 << 20, flags: 4).error == 0)
    // What has no payload may be as long as the disk.
    for type in [Command.trim, Command.zero, Command.cache] {
      #expect(simple.call(type, length: 4 << 20).error == 0)
    }
  }

  @Test(
    "64 MiB in one write and one read come through",
    arguments: [RawClient.Style.structured, .extended])
  func largest(style: RawClient.Style) throws {
    let disk = MemoryExport(size: 64 << 20, isSlow: true)
    let live = try LiveServer([("disk", disk)])
    let client = try live.client(of: "disk", style: style)
    var bytes = [UInt8](repeating: 0xA5, count: 64 << 20)
    for index in stride(from: 0, to: bytes.count, by: 4093) { bytes[index] = UInt8(index & 0xFF) }
    #expect(client.call(Command.write, length: 64 << 20, payload: bytes).error == 0)
    #expect(disk.content(0, 64 << 20) == bytes)
    let answer = client.call(Command.read, length: 64 << 20, flags: 4)
    #expect(
      answer.error == 0 && answer.chunks.first.map { Array($0.payload.dropFirst(8)) } == bytes)
    #expect(becomes { live.server.bytesInFlight == 0 })
  }

  @Test("broken request magic ends the connection, behind the replies to what came before")
  func brokenMagic() throws {
    let client = try live.client(of: "disk", style: .simple)
    client.send(
      RawClient.request(Command.read, length: 512) + RawClient.request(Command.flush, cookie: 8)
        + [UInt8](repeating: 0xEE, count: 28))
    var cookies: Set<UInt64> = []
    cookies.insert(client.answer(reading: 512).cookie)
    cookies.insert(client.answer().cookie)
    #expect(cookies == [7, 8] && client.isHungUp)
  }

  @Test("DISC ends the connection behind all replies, whatever its fields say")
  func disconnect() throws {
    let slow = MemoryExport(size: Self.size, isSlow: true)
    let live = try LiveServer([("disk", slow)])
    let client = try live.client(of: "disk", style: .simple)
    for cookie in 0..<100 {
      client.send(
        RawClient.request(Command.write, offset: UInt64(cookie), length: 1, cookie: UInt64(cookie))
          + [UInt8(cookie)])
    }
    client.send(RawClient.request(Command.disconnect, offset: .max, length: 9, flags: 0xFFFF))
    let cookies = Set((0..<100).map { _ in client.answer().cookie })
    #expect(cookies == Set(0..<100) && client.isHungUp)
    #expect(slow.content(0, 100) == (0..<100).map { UInt8($0) })
  }

  @Test("what a client sent before it left is carried out, whether or not it reads replies")
  func leftBehind() throws {
    let slow = MemoryExport(size: Self.size, isSlow: true)
    let live = try LiveServer([("disk", slow)])
    do {
      let client = try live.client(of: "disk")
      for index in 0..<200 {
        client.send(
          RawClient.request(Command.write, offset: UInt64(index) * 1000, length: 1000)
            + [UInt8](repeating: UInt8(index + 1), count: 1000))
      }
    }
    #expect(becomes { live.server.connectionCount == 0 })
    #expect((0..<200).allSatisfy { slow.content($0 * 1000 + 999, 1) == [UInt8($0 + 1)] })
  }

  @Test("half of a payload and then nothing changes at most what has come")
  func tornPayload() throws {
    for (bytes, sent) in [(100, 99), (130_000, 129_999), (300_000, 100_000), (300_000, 299_999)] {
      do {
        let client = try live.client(of: "disk")
        client.send(
          RawClient.request(Command.write, offset: 4096, length: UInt32(bytes)) + noise(sent))
      }
      #expect(becomes { live.server.connectionCount == 0 })
      // A large payload is written as it comes; nobody was told that it is there.
      let held = disk.content(0, Self.size)
      let written = (held.lastIndex { $0 != 0 } ?? 4095) + 1 - 4096
      #expect(written <= sent && (bytes > 128 << 10 || written == 0))
      #expect(Array(held[4096..<4096 + written]) == Array(noise(sent)[..<written]))
      #expect(held[..<4096].allSatisfy { $0 == 0 })
    }
  }

  @Test("slow requests do not hold quick ones back, and replies come in any order")
  func outOfOrder() throws {
    let client = try live.client(of: "disk", style: .simple)
    disk.gate.update { $0 = false }
    client.send(
      RawClient.request(Command.flush, cookie: 1)
        + RawClient.request(Command.read, length: 10, cookie: 2))
    #expect(client.answer(reading: 10).cookie == 2)
    disk.gate.update { $0 = true }
    #expect(client.answer().cookie == 1)
  }
}
