import PloopIO
import PloopNBD
import TestSupport
import Testing

@Suite("Extended headers")
struct ExtendedHeaderTests {
  private static let wide: UInt64 = 1 << 44
  private let disk = MemoryExport(size: 1 << 20, claiming: wide, bitmaps: ["cp-1"])
  private let live: LiveServer

  init() throws { live = try LiveServer([("disk", disk)]) }

  private func client(_ contexts: [String] = []) throws -> RawClient {
    try live.client(of: "disk", style: .extended, contexts: contexts)
  }

  @Test("are agreed on once, and go before structured replies in whatever order they are asked for")
  func negotiation() throws {
    for earlier in [false, true] {
      let client = try live.client()
      client.greet()
      if earlier { #expect(client.ask(8).type == 1) }
      #expect(client.ask(11, [0]).type == optionError + 3)
      #expect(client.turnOn(.extended))
      #expect(client.ask(11).type == optionError + 3)
      #expect(client.ask(8).type == optionError + 10)
      #expect(client.ask(7, RawClient.goData("disk")).type == 1)
      let answer = client.call(3)
      #expect(answer.error == 0 && answer.isStructured)
    }
    let old = try live.client()
    old.greet()
    #expect(old.turnOn(.extended))
    old.send(RawClient.option(1, Array("disk".utf8)))
    #expect(old.isHungUp)
  }

  @Test("every reply is a chunk with the cookie and the offset of its request")
  func replies() throws {
    let client = try client(["base:allocation"])
    let payload = [UInt8](repeating: 7, count: 512)
    for type: UInt16 in [0, 1, 3, 4, 5, 6, 7, 9] {
      for (offset, isFine) in [(UInt64(4096), type != 9), (.max - 511, type == 3)] {
        let answer = client.call(
          type, offset: offset, length: 512, payload: type == 1 ? payload : [])
        #expect(answer.isStructured && answer.cookie == 7, "command \(type)")
        #expect((answer.error == 0) == isFine, "command \(type) at \(offset)")
        #expect(answer.chunks.allSatisfy { $0.offset == offset && $0.cookie == 7 })
      }
    }
  }

  @Test("what has no payload may be longer than 4 GiB, and a status tells 64 bits")
  func wideLengths() throws {
    let client = try client(["base:allocation"])
    let part: UInt64 = 1 << 30
    for (type, name): (UInt16, String) in [(4, "trim"), (5, "cache"), (6, "zero")] {
      disk.calls.withLock { $0 = [] }
      #expect(client.call(type, offset: 512, length: 4 * part, flags: 1).error == 0)
      // A part at a time, and durable when all of it is.
      let durable = name == "cache" ? "" : " durable"
      #expect(
        disk.calls.withLock { $0 } == [
          "\(name) 512 \(part - 512)", "\(name) \(part) \(part)", "\(name) \(2 * part) \(part)",
          "\(name) \(3 * part) \(part)", "\(name) \(4 * part) 512\(durable)",
        ])
    }
    for type: UInt16 in [4, 5, 6] { #expect(client.call(type, length: Self.wide).error == 0) }
    // One that cannot be fast changes nothing.
    disk.calls.withLock { $0 = [] }
    #expect(client.call(6, length: 2 * part, flags: 16).error == 95)
    #expect(disk.calls.withLock { $0 } == ["fast 0 \(2 * part)"])
    #expect(client.call(1, length: 512, payload: [UInt8](repeating: 1, count: 512)).error == 0)
    let cluster = UInt64(MemoryExport.clusterBytes)
    let status = try #require(client.call(7, length: Self.wide).chunks.first)
    #expect(status.type == 6)
    #expect(status.status?.runs == [[cluster, 0], [Self.wide - cluster, 3]])
  }

  @Test(
    "lengths up to 2^64 get their error, and only a payload that nobody sends ends the connection")
  func hugeLengths() throws {
    let client = try client(["base:allocation"])
    for length: UInt64 in [.max, .max - 4096, 1 << 63, Self.wide + 1] {
      #expect(client.call(0, length: length).error == 75)
      for type: UInt16 in [4, 5, 7] { #expect(client.call(type, length: length).error == 22) }
      #expect(client.call(6, length: length).error == 28)
    }
    client.send(client.request(1, length: UInt64(UInt32.max) + 1))
    #expect(client.isHungUp)
  }

  @Test("a payload where there is none to be is read and refused; a WRITE has one whatever it says")
  func payloadFlag() throws {
    let client = try client(["base:allocation"])
    for type: UInt16 in [0, 3, 4, 5, 6, 8, 99] {
      let answer = client.call(
        type, length: 1000, flags: 32, payload: [UInt8](repeating: 0xEE, count: 1000))
      #expect(answer.error == 22, "command \(type)")
    }
    var bytes = client.request(1, offset: 100, length: 5)
    bytes[5] = 0
    client.send(bytes + [1, 2, 3, 4, 5])
    #expect(client.answer().error == 0 && disk.content(100, 5) == [1, 2, 3, 4, 5])
  }

  @Test("a status with a payload tells of the contexts that it names")
  func selectiveStatus() throws {
    let client = try client(["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:cp-1"])
    let cluster = UInt64(MemoryExport.clusterBytes)
    func ask(_ length: UInt64, _ ids: [UInt32], flags: UInt16 = 0) -> RawClient.Answer {
      let payload = big(length) + ids.flatMap { big($0) }
      return client.call(7, length: payload.count, flags: 32 | flags, payload: payload)
    }
    let hole = [[cluster + 512, UInt64(3)]]
    let dirty = [[cluster, UInt64(0)], [512, 1]]
    let cases: [(ids: [UInt32], wanted: [UInt32: [[UInt64]]])] = [
      ([1], [1: hole]), ([3], [3: dirty]), ([3, 1], [1: hole, 3: dirty]),
    ]
    for (ids, wanted) in cases {
      var found: [UInt32: [[UInt64]]] = [:]
      let answer = ask(cluster + 512, ids)
      for chunk in answer.chunks {
        let status = try #require(chunk.status)
        found[status.id] = status.runs
      }
      #expect(answer.error == 0 && found == wanted)
    }
    #expect(ask(cluster + 512, [3], flags: 8).chunks.first?.status?.runs == [[cluster, 0]])
    for (length, ids): (UInt64, [UInt32]) in [
      (512, []), (512, [4]), (512, [0]), (512, [1, 1]), (0, [1]), (Self.wide + 1, [1]), (.max, [1]),
      (512, [1, 2, 3, 4]), (512, [UInt32](repeating: 1, count: 1_000)),
    ] {
      #expect(ask(length, ids).error == 22, "\(length) bytes, \(ids.count) contexts")
    }
    for count in [0, 1, 7, 9, 11, 13] {
      let payload = [UInt8](repeating: 0, count: count)
      #expect(client.call(7, length: count, flags: 32, payload: payload).error == 22)
    }
    #expect(client.call(3).error == 0)
  }

  @Test("a status payload is for those who were told of it")
  func untoldPayload() throws {
    func flags(_ contexts: [String]) throws -> UInt16 {
      let client = try live.client()
      client.greet()
      #expect(client.turnOn(.extended))
      _ = client.ask(10, RawClient.contextData("disk", contexts))
      let told = client.ask(7, RawClient.goData("disk")).items.first
      if contexts.isEmpty {
        let payload = big(UInt64(512)) + big(UInt32(1))
        #expect(client.call(7, length: payload.count, flags: 32, payload: payload).error == 22)
        #expect(client.call(3).error == 0)
      }
      return number(try #require(told).data[10...], as: UInt16.self)
    }
    #expect(try flags([]) & 1 << 12 == 0)
    #expect(try flags(["base:allocation"]) & 1 << 12 != 0)
  }

  @Test("a header of the other kind ends the connection")
  func wrongHeaders() throws {
    let extended = try client()
    extended.send(RawClient.request(3) + [0, 0, 0, 0])
    #expect(extended.isHungUp)
    let compact = try live.client(of: "disk")
    compact.send(try client().request(3, length: 0))
    #expect(compact.isHungUp)
  }
}
