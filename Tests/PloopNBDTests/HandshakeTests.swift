import PloopIO
import PloopNBD
import TestSupport
import Testing

@Suite("The NBD handshake")
struct HandshakeTests {
  private let live: LiveServer

  init() throws {
    live = try LiveServer([
      ("disk", MemoryExport(size: 1 << 20)),
      ("ro", MemoryExport(size: 3 << 20, isReadOnly: true)),
      ("größe/日本", MemoryExport(size: 2 << 20, summary: "Umlaute")),
    ])
  }

  private func greeted(_ flags: UInt32 = 3) throws -> RawClient {
    let client = try live.client()
    #expect(client.greet(flags: flags) == Array("NBDMAGICIHAVEOPT".utf8) + [0, 3])
    return client
  }

  @Test("a client flag that was not offered ends the connection", arguments: [4, 0x8000_0003])
  func unknownClientFlags(flags: UInt32) throws {
    let client = try greeted(flags)
    client.send(RawClient.option(3, []))
    #expect(client.isHungUp)
  }

  @Test("a client without fixed newstyle can enter by EXPORT_NAME and by nothing else")
  func notFixed() throws {
    let entering = try greeted(0)
    entering.send(RawClient.option(1, Array("disk".utf8)))
    let reply = entering.receive(8 + 2 + 124)
    #expect(number(reply[..<8], as: UInt64.self) == 1 << 20)
    #expect(reply.count == 134 && reply[10...].allSatisfy { $0 == 0 })
    #expect(entering.call(0, length: 512).error == 0)
    let listing = try greeted(0)
    listing.send(RawClient.option(3, []))
    #expect(listing.isHungUp)
  }

  @Test("EXPORT_NAME leaves the zeroes out when asked, and hangs up on what it does not know")
  func exportName() throws {
    let client = try greeted()
    client.send(RawClient.option(1, Array("disk".utf8)))
    #expect(client.receive(10).count == 10)
    #expect(client.call(3).error == 0)
    for name in [Array("nope".utf8), [], [UInt8](repeating: 97, count: 4097), [0xFF]] {
      let refused = try greeted()
      refused.send(RawClient.option(1, name))
      #expect(refused.isHungUp)
    }
  }

  @Test("EXPORT_NAME keeps structured replies on")
  func exportNameStructured() throws {
    let client = try greeted()
    #expect(client.ask(8).type == 1)
    client.send(RawClient.option(1, Array("disk".utf8)))
    #expect(number(client.receive(10)[8...], as: UInt16.self) & 1 << 7 != 0)
    #expect(client.call(0, length: 512).isStructured)
  }

  @Test("well-framed wrong options get their error and the stream stays in step")
  func wrongOptions() throws {
    let client = try greeted()
    let long = [UInt8](repeating: 0, count: 100_000)
    let cases: [(option: UInt32, data: [UInt8], error: UInt32)] = [
      (99, [1, 2, 3], 1), (99, long, 1), (4, [], 1), (12, [], 1),
      (3, [0], 3), (3, long, 3), (5, [], 2), (5, [1], 3), (8, [1], 3), (10, [], 3),
      (6, [], 3), (6, [0, 0, 0, 9, 1], 3), (6, big(UInt32.max) + [0, 0], 3),
      (6, RawClient.goData("disk") + [0], 3), (7, RawClient.goData("disk").dropLast() + [1], 3),
      (7, RawClient.goData("nope"), 6), (7, RawClient.goData(""), 6), (7, long, 9),
      (7, RawClient.goData("/disk"), 6), (7, RawClient.goData("di\0sk"), 3),
      (6, big(UInt32(1)) + [0xFF, 0, 0], 3),
      (6, RawClient.goData(String(repeating: "a", count: 4097)), 3),
    ]
    for wrong in cases {
      let answer = client.ask(wrong.option, Array(wrong.data))
      #expect(
        answer.type == optionError + wrong.error, "option \(wrong.option) \(wrong.data.prefix(12))")
      #expect(!answer.words.isEmpty)
    }
    #expect(client.ask(8).type == 1)
    #expect(client.ask(8).type == optionError + 3)
    #expect(client.ask(7, RawClient.goData("disk")).type == 1)
    #expect(client.call(0, length: 4096).error == 0)
  }

  @Test("ABORT is acknowledged, with data too, and ends the connection")
  func abort() throws {
    for data in [[], [1, 2, 3], [UInt8](repeating: 0, count: 100_000)] {
      let client = try greeted()
      #expect(client.ask(2, data).type == 1)
      #expect(client.isHungUp)
    }
  }

  @Test("options that come together are answered one behind the other")
  func pipelined() throws {
    let client = try live.client()
    client.send(
      big(UInt32(3)) + RawClient.option(8, []) + RawClient.option(77, [9])
        + RawClient.option(6, RawClient.goData("ro"))
        + RawClient.option(7, RawClient.goData("disk"))
        + RawClient.request(0, length: 100))
    #expect(client.receive(18).count == 18)
    #expect(client.answer(to: 8).type == 1)
    #expect(client.answer(to: 77).type == optionError + 1)
    #expect(client.answer(to: 6).items.count == 1)
    #expect(client.answer(to: 7).items.count == 1)
    #expect(client.answer(reading: 100).error == 0)
  }

  @Test("INFO tells what GO tells: size and flags unasked, name, description and block size asked")
  func info() throws {
    let client = try greeted()
    #expect(client.ask(8).type == 1)
    let name = "größe/日本"
    // 9 is a type that nobody knows; a type asked twice is told once.
    let wanted = RawClient.goData(name, infos: [3, 2, 1, 9, 3])
    let info = client.ask(6, wanted)
    let go = client.ask(7, wanted)
    #expect(info.type == 1 && go.type == 1)
    #expect(info.items.map(\.data) == go.items.map(\.data))
    let told = Dictionary(uniqueKeysWithValues: go.items.map { ($0.data[1], Array($0.data[2...])) })
    #expect(go.items.allSatisfy { $0.type == 3 } && told.keys.sorted() == [0, 1, 2, 3])
    #expect(told[0]?.prefix(8).elementsEqual(big(UInt64(2 << 20))) == true)
    #expect(told[1] == Array(name.utf8) && told[2] == Array("Umlaute".utf8))
    #expect(told[3] == big(UInt32(1)) + big(UInt32(4096)) + big(UInt32(64 << 20)))
  }

  @Test("transmission flags say what can be done, and DF only with structured replies")
  func transmissionFlags() throws {
    func flags(_ name: String, _ style: RawClient.Style) throws -> UInt16 {
      let client = try greeted()
      #expect(client.turnOn(style))
      let answer = client.ask(6, RawClient.goData(name))
      return number(try #require(answer.items.first).data[10...], as: UInt16.self)
    }
    let all: UInt16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
    let readOnly: UInt16 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 8 | 1 << 10
    #expect(try flags("disk", .simple) == all)
    for style: RawClient.Style in [.structured, .extended] {
      #expect(try flags("disk", style) == all | 1 << 7)
    }
    #expect(try flags("ro", .simple) == readOnly)
    for style: RawClient.Style in [.structured, .extended] {
      #expect(try flags("ro", style) == readOnly | 1 << 7)
    }
  }

  @Test("contexts are listed by wildcard, set by name, and numbered once")
  func contexts() throws {
    let client = try greeted()
    func names(_ option: UInt32, _ queries: [String]) -> [String] {
      let answer = client.ask(option, RawClient.contextData("disk", queries))
      #expect(answer.type == 1 && answer.items.allSatisfy { $0.type == 4 })
      return answer.items.map { String(decoding: $0.data[4...], as: UTF8.self) }
    }
    #expect(
      client.ask(10, RawClient.contextData("disk", ["base:allocation"])).type == optionError + 3)
    #expect(client.ask(8).type == 1)
    #expect(names(9, []) == ["base:allocation"])
    #expect(names(9, ["base:"]) == ["base:allocation"])
    #expect(names(9, ["qemu:", "nonsense", "base:else"]) == [])
    #expect(names(10, ["base:allocation", "qemu:x", "base:allocation"]) == ["base:allocation"])
    #expect(names(10, ["base:"]) == [])
    #expect(names(10, []) == [])
  }

  @Test("bitmaps and depth are listed by their wildcards, and set by whole names only")
  func bitmapContexts() throws {
    let disk = MemoryExport(size: 1 << 20, bitmaps: ["a", "b"])
    let live = try LiveServer([("disk", disk)])
    let client = try live.client()
    client.greet()
    #expect(client.ask(8).type == 1)
    func names(_ option: UInt32, _ queries: [String]) -> [String] {
      client.ask(option, RawClient.contextData("disk", queries)).items.map {
        String(decoding: $0.data[4...], as: UTF8.self)
      }
    }
    let bitmaps = ["qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b"]
    #expect(names(9, ["qemu:"]) == ["qemu:allocation-depth"] + bitmaps)
    #expect(names(9, ["qemu:dirty-bitmap:"]) == bitmaps)
    #expect(names(9, []) == ["base:allocation", "qemu:allocation-depth"] + bitmaps)
    #expect(names(9, ["qemu:dirty-bitmap:b", "qemu:dirty-bitmap"]) == ["qemu:dirty-bitmap:b"])
    #expect(names(10, ["qemu:", "qemu:dirty-bitmap:"]) == [])
    #expect(names(10, ["qemu:dirty-bitmap:a", "qemu:dirty-bitmap:c"]) == ["qemu:dirty-bitmap:a"])
  }

  @Test("malformed context options get their error and stay in step")
  func malformedContexts() throws {
    let client = try greeted()
    #expect(client.ask(8).type == 1)
    let name = big(UInt32(4)) + Array("disk".utf8)
    let cases: [(data: [UInt8], error: UInt32)] = [
      ([], 3), (big(UInt32.max), 3), (name, 3), (name + big(UInt32(1)), 3),
      (name + big(UInt32(1)) + big(UInt32.max), 3),
      (name + big(UInt32(1)) + big(UInt32(5)) + [1, 2, 3, 4], 3),
      (name + big(UInt32(0)) + [1], 3), (name + big(UInt32(1025)), 9), (name + big(UInt32.max), 9),
      (RawClient.contextData("nope", []), 6), ([UInt8](repeating: 0, count: 100_000), 9),
    ]
    for wrong in cases {
      for option: UInt32 in [9, 10] {
        #expect(client.ask(option, wrong.data).type == optionError + wrong.error)
      }
    }
    #expect(client.ask(7, RawClient.goData("disk")).type == 1)
  }

  @Test("a selected context holds for its export only, and for the last selection only")
  func contextOfAnother() throws {
    func status(_ selections: [(String, [String])], _ structured: Bool = true) throws -> UInt32? {
      let client = try greeted()
      if structured { #expect(client.ask(8).type == 1) }
      for (name, queries) in selections {
        _ = client.ask(10, RawClient.contextData(name, queries))
      }
      #expect(client.ask(7, RawClient.goData("disk")).type == 1)
      return client.call(7, length: 65536).error
    }
    let base = ["base:allocation"]
    #expect(try status([("disk", base)]) == 0)
    #expect(try status([]) == 22)
    #expect(try status([("ro", base)]) == 22)
    #expect(try status([("disk", base), ("ro", base)]) == 22)
    #expect(try status([("disk", base), ("disk", [])]) == 22)
    #expect(try status([("disk", base), ("nope", base)]) == 22)
    #expect(try status([("disk", base)], false) == 22)
  }

  @Test("an export that takes nobody now says why, and haggling goes on")
  func refusedExports() throws {
    let client = try greeted()
    live.directory.refused.withLock {
      $0 = [
        Array("disk".utf8): DoorRefusal(.leaving, "being detached"),
        Array("ro".utf8): DoorRefusal(.policy, "the disk has failed"),
      ]
    }
    for option: UInt32 in [6, 7] {
      let leaving = client.ask(option, RawClient.goData("disk"))
      #expect(leaving.type == optionError + 7 && leaving.words == "being detached")
      let failed = client.ask(option, RawClient.goData("ro"))
      #expect(failed.type == optionError + 2 && failed.words == "the disk has failed")
    }
    live.directory.refused.withLock { $0 = [:] }
    #expect(client.ask(7, RawClient.goData("disk")).type == 1)
  }

  @Test("LIST tells a thousand exports with long names, and real clients read it")
  func longList() throws {
    let names = (0..<1000).map { "\($0)-" + String(repeating: "ä", count: 100) }
    let many = try LiveServer(names.map { ($0, MemoryExport(size: 4096, summary: "no. \($0)")) })
    let client = try many.client()
    client.greet()
    let list = client.ask(3)
    #expect(list.type == 1 && list.items.count == 1000)
    for (name, item) in zip(names, list.items) {
      let body = big(UInt32(name.utf8.count)) + Array("\(name)no. \(name)".utf8)
      #expect(item.type == 2 && item.data == body)
    }
    try many.python(
      """
      h = nbd.NBD(); h.set_opt_mode(True); h.connect_uri(uri)
      found = []; h.opt_list(lambda name, words: found.append(name))
      assert len(found) == 1000 and found[999].startswith('999-ää'), found[:3]
      h.opt_abort()
      """, uri: "")
  }

  @Test("descriptions are cut at a character's border")
  func longDescription() throws {
    let wordy = try LiveServer([
      ("disk", MemoryExport(size: 4096, summary: "a" + String(repeating: "ä", count: 3000)))
    ])
    let client = try wordy.client()
    client.greet()
    let told = try #require(client.ask(6, RawClient.goData("disk", infos: [2])).items.last).data
    #expect(told.count == 2 + 4095 && String(validating: told[2...], as: UTF8.self) != nil)
  }

  @Test("more options or bytes than a handshake may have end the connection")
  func endlessHaggling() throws {
    var limits = Limits()
    limits.options = 5
    limits.handshakeBytes = 300_000
    let strict = try LiveServer([("disk", MemoryExport(size: 4096))], limits: limits)
    let many = try strict.client()
    many.greet()
    for _ in 0..<5 { #expect(many.ask(99).type == optionError + 1) }
    _ = many.ask(99)
    #expect(many.isHungUp)
    let large = try strict.client()
    large.greet()
    for _ in 0..<2 { #expect(large.ask(99, [UInt8](repeating: 0, count: 140_000)).type > 1) }
    _ = large.ask(99, [UInt8](repeating: 0, count: 140_000))
    #expect(large.isHungUp)
  }

  @Test("an option that claims more than is drained ends the connection")
  func hugeOption() throws {
    let client = try greeted()
    client.send(Array("IHAVEOPT".utf8) + big(UInt32(99)) + big(UInt32(32 << 20) + 1))
    #expect(client.isHungUp)
    let fits = try greeted()
    let answer = fits.ask(99, [UInt8](repeating: 1, count: 32 << 20))
    #expect(answer.type == optionError + 1)
  }

  @Test("wrong option magic ends the connection")
  func wrongMagic() throws {
    let client = try greeted()
    client.send(Array("IHAVEOPX".utf8) + big(UInt32(3)) + big(UInt32(0)))
    #expect(client.isHungUp)
  }

  @Test("a client that stalls in the handshake is dropped, wherever it stops")
  func stalls() throws {
    var limits = Limits()
    limits.handshakeSeconds = 1
    let hasty = try LiveServer([("disk", MemoryExport(size: 4096))], limits: limits)
    let starts: [[UInt8]] = [
      [], [0, 0], big(UInt32(3)), big(UInt32(3)) + Array("IHAVE".utf8),
      big(UInt32(3)) + Array("IHAVEOPT".utf8) + big(UInt32(7)) + big(UInt32(100)) + [1],
      big(UInt32(3)) + Array("IHAVEOPT".utf8) + big(UInt32(99)) + big(UInt32(1 << 20)) + [1],
    ]
    let clients = try starts.map { start in
      let client = try hasty.client()
      #expect(client.receive(18).count == 18)
      client.send(start)
      return client
    }
    let settled = try hasty.client(of: "disk")
    for client in clients { #expect(client.isHungUp) }
    #expect(becomes { hasty.server.connectionCount == 1 })
    #expect(settled.call(0, length: 512).error == 0)
  }

  @Test("more connections than the limit are turned away, and a free place is taken again")
  func connectionLimit() throws {
    var limits = Limits()
    limits.connections = 3
    let small = try LiveServer([("disk", MemoryExport(size: 4096))], limits: limits)
    var clients = try (0..<3).map { _ in try small.client(of: "disk") }
    #expect(try small.client().isHungUp)
    #expect(clients.allSatisfy { $0.call(0, length: 512).error == 0 })
    clients.removeLast()
    #expect(becomes { small.server.connectionCount == 2 })
    #expect(try small.client(of: "disk").call(0, length: 512).error == 0)
  }

  @Test("clients are listed with what they have asked for, and what of it waits for how long")
  func requests() throws {
    let disk = MemoryExport(size: 1 << 20, isSlow: true)
    let slow = try LiveServer([("slow", disk)])
    let client = try slow.client(of: "slow")
    func status() -> ClientStatus? { slow.server.clients(of: Array("slow".utf8)).first }
    #expect(status()?.requests == 0 && status()?.oldestNanoseconds == nil)
    disk.gate.update { $0 = false }
    for cookie: UInt64 in 1...3 {
      client.send(RawClient.request(3, cookie: cookie))
    }
    // Refused at once.
    #expect(client.call(99).error == 22)
    #expect(becomes { status()?.requestsInFlight == 3 })
    let before = try #require(status()?.oldestNanoseconds)
    #expect(becomes { status()?.oldestNanoseconds ?? 0 > before })
    #expect(status()?.requests == 4)
    disk.gate.update { $0 = true }
    for _ in 1...3 { #expect(client.answer().error == 0) }
    #expect(status()?.requestsInFlight == 0 && status()?.oldestNanoseconds == nil)
  }

  @Test("clients are listed with who they are, from the moment they enter an export")
  func clients() throws {
    #expect(live.server.clients(of: Array("disk".utf8)).isEmpty)
    let client = try live.client(of: "disk")
    let haggling = try greeted()
    #expect(haggling.ask(6, RawClient.goData("disk")).type == 1)
    #expect(client.call(1, length: 512, payload: [UInt8](repeating: 1, count: 512)).error == 0)
    let listed = live.server.clients(of: Array("disk".utf8))
    #expect(listed.count == 1)
    let mine = try #require(listed.first)
    let (pid, uid) = (try Tool.shell("echo $PPID").output, try Tool.shell("id -u").output)
    #expect(
      mine.peer == "unix:pid=\(pid.dropLast()),uid=\(uid.dropLast())" && mine.receivedBytes > 540)
    #expect(mine.sentBytes > 18 && mine.since > 1_700_000_000)
    try live.python(
      "h = nbd.NBD(); h.connect_uri('nbd://127.0.0.1:\(live.port)/disk'); h.pread(512, 0); h.shutdown()",
      uri: "disk")
    #expect(becomes { live.server.clients(of: Array("disk".utf8)).count == 1 })
  }
}
