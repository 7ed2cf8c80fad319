import Glibc
import PloopIO
import PloopNBD
import TestSupport
import Testing

extension SeededGenerator {
  /// Seeded by NBD_FUZZ_SEED, or anew; the seed is printed.
  static func fromEnvironment(_ name: String) -> SeededGenerator {
    let seed = environment("NBD_FUZZ_SEED") ?? UInt64.random(in: 0...UInt64(UInt32.max))
    print("\(name): NBD_FUZZ_SEED=\(seed)")
    return SeededGenerator(seed: seed)
  }

  mutating func below(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &self) }
}

private func environment(_ name: String) -> UInt64? {
  getenv(name).flatMap { UInt64(String(cString: $0)) }
}

@Suite("Random NBD clients")
struct FuzzTests {
  private static let workers = 8

  /// NBD_FUZZ_SECONDS makes it longer than what `make test` takes.
  @Test("random and mutated conversations end in time and disturb nobody")
  func conversations() throws {
    let live = try LiveServer([
      ("fast", MemoryExport(size: 4 << 20)), ("slow", MemoryExport(size: 4 << 20, isSlow: true)),
      ("ro", MemoryExport(size: 1 << 20, isReadOnly: true)),
      ("canary", MemoryExport(size: 1 << 20, isSlow: true)),
    ])
    let deadline = Deadline.after(seconds: Int(environment("NBD_FUZZ_SECONDS") ?? 4))
    var random = SeededGenerator.fromEnvironment("random NBD clients")
    let results = Monitor(Results())
    let path = live.path
    for _ in 0..<Self.workers {
      let seed = random.next()
      try Thread(name: "fuzz") { Self.work(path, seed, deadline, results) }.detach()
    }
    let canary = try live.client(of: "canary", style: .simple)
    var rounds = 0
    while !deadline.hasPassed {
      rounds += 1
      let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: rounds), count: 10_000)
      let offset = UInt64(rounds % 50 * 10_000 + 1)
      #expect(canary.call(1, offset: offset, length: 10_000, flags: 1, payload: bytes).error == 0)
      try #require(canary.call(0, offset: offset, length: 10_000).data == bytes)
    }
    let ended = results.wait(until: .after(seconds: 60)) { results in
      results.workersDone == Self.workers ? results : nil
    }
    let found = try #require(ended, "a client was never let go")
    print("\(found.conversations) conversations, \(rounds) rounds of the canary")
    #expect(found.faults.isEmpty, "\(found.faults)")
    #expect(found.conversations > 100 && found.entered > 20 && rounds > 10)
    #expect(becomes { live.server.connectionCount == 1 && live.server.bytesInFlight == 0 })
    #expect(canary.call(3).error == 0)
  }

  private struct Results {
    var workersDone = 0
    var conversations = 0
    /// Clients that were told more than a greeting.
    var entered = 0
    var faults: [String] = []
  }

  private static func work(
    _ path: String, _ seed: UInt64, _ deadline: Deadline, _ results: Monitor<Results>
  ) {
    var seeds = SeededGenerator(seed: seed)
    while !deadline.hasPassed {
      let seed = seeds.next()
      var random = SeededGenerator(seed: seed)
      let bytes = Conversation.random(&random)
      guard let client = try? RawClient(path) else {
        results.update { $0.faults.append("seed \(seed): cannot connect") }
        break
      }
      // In pieces, so that messages are also torn by the network.
      var sent = 0
      while sent < bytes.count {
        let piece = min(bytes.count - sent, 1 + random.below(20_000))
        let count = client.sendNow(Array(bytes[sent..<sent + piece]))
        guard count > 0 else { break }
        sent += count
      }
      // Some leave without a word, the others read what comes until the server hangs up.
      guard random.below(4) > 0 else {
        results.update { $0.conversations += 1 }
        continue
      }
      client.halfClose()
      let told = client.readToEnd()
      results.update { results in
        results.conversations += 1
        if told ?? 0 > 18 { results.entered += 1 }
        if told == nil { results.faults.append("seed \(seed): not let go") }
      }
    }
    results.update { $0.workersDone += 1 }
  }
}

extension RawClient {
  /// - Returns: how many bytes the server said before it hung up; nil when it did not.
  fileprivate func readToEnd() -> Int? {
    var total = 0
    while true {
      let count = receiveSome(65536)
      if count == 0 { return total }
      guard count > 0 else { return nil }
      total += count
    }
  }
}

/// What a client says, right or nearly so.
private enum Conversation {
  static func random(_ random: inout SeededGenerator) -> [UInt8] {
    if random.below(10) == 0 { return noise(random.below(3000), &random) }
    var bytes = big(UInt32(random.below(20) == 0 ? random.below(8) : 3))
    for _ in 0..<random.below(5) { bytes += option(&random) }
    let name = ["fast", "slow", "ro", "nope"][random.below(4)]
    let isExtended = random.below(3) == 0
    if isExtended { bytes += RawClient.option(11, []) }
    if random.below(2) == 0 { bytes += RawClient.option(8, []) }
    if random.below(2) == 0 {
      bytes += RawClient.option(10, RawClient.contextData(name, ["base:allocation"]))
    }
    bytes +=
      random.below(8) == 0 && !isExtended
      ? RawClient.option(1, Array(name.utf8)) : RawClient.option(7, RawClient.goData(name))
    for _ in 0..<random.below(30) { bytes += request(isExtended, &random) }
    for _ in 0..<random.below(4) { mutate(&bytes, &random) }
    return bytes
  }

  private static func noise(_ count: Int, _ random: inout SeededGenerator) -> [UInt8] {
    (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
  }

  private static func option(_ random: inout SeededGenerator) -> [UInt8] {
    switch random.below(6) {
    case 0: RawClient.option(3, [])
    case 1: RawClient.option(6, RawClient.goData("fast", infos: [0, 1, 2, 3, 4]))
    case 2: RawClient.option(9, RawClient.contextData("slow", ["base:", "qemu:"]))
    case 3: RawClient.option(UInt32(random.below(20)), noise(random.below(50), &random))
    case 4: RawClient.option(5, [])
    default: RawClient.option(99, [UInt8](repeating: 0, count: random.below(70_000)))
    }
  }

  private static func request(
    _ isExtended: Bool, _ random: inout SeededGenerator
  ) -> [UInt8] {
    let type = UInt16(random.below(random.below(10) == 0 ? 12 : 8))
    let lengths = [0, 1, 511, 512, 4096, 65536, 70_001, 300_000, 1 << 20]
    let length = lengths[random.below(lengths.count)]
    let flags = random.below(5) == 0 ? UInt16(1 << random.below(8)) : 0
    let offset = random.below(20) == 0 ? random.next() : UInt64(random.below(4 << 20))
    // DISC would end most conversations early.
    guard type != 2 || random.below(10) == 0 else { return [] }
    let payload = type == 7 && random.below(3) == 0 ? big(UInt64(length)) + big(UInt32(1)) : []
    let header =
      isExtended
      ? big(UInt32(0x21e4_1c71)) + big(flags | (type == 1 || !payload.isEmpty ? 32 : 0))
        + big(type) + big(random.next()) + big(offset)
        + big(UInt64(payload.isEmpty ? length : payload.count)) + payload
      : RawClient.request(
        type, offset: offset, length: UInt32(length), flags: flags, cookie: random.next())
    return header
      + (type == 1 ? [UInt8](repeating: UInt8(length & 0xFF), count: length) : [])
  }

  private static func mutate(_ bytes: inout [UInt8], _ random: inout SeededGenerator) {
    guard !bytes.isEmpty else { return }
    // Mostly where the structure is, at the beginning.
    let place = random.below(random.below(3) == 0 ? bytes.count : min(bytes.count, 400))
    switch random.below(6) {
    case 0: bytes[place] ^= 1 << UInt8(random.below(8))
    case 1: bytes.removeSubrange(place...)
    case 2: bytes.insert(contentsOf: noise(1 + random.below(40), &random), at: place)
    case 3: bytes.removeSubrange(place..<min(bytes.count, place + 1 + random.below(40)))
    case 4: bytes += bytes[place...].prefix(200)
    default:
      let values: [UInt32] = [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 26, 1 << 25 + 1]
      let value = big(values[random.below(values.count)])
      for (index, byte) in value.enumerated() where place + index < bytes.count {
        bytes[place + index] = byte
      }
    }
  }
}
