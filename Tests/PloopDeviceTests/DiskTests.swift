import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("A disk")
struct DiskTests {
  let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 40 * 4096)

  @Test("an unmapped cluster reads as zero, and reading allocates nothing")
  func readsZero() throws {
    let disk = try DiskFixture()
    try disk.make("top", geometry)
    let device = try disk.attach(["top"])
    #expect(try device.bytes(5000, 9000).allSatisfy { $0 == 0 })
    #expect(device.mappedClusters == 0)
    try device.close()
  }

  @Test("a write allocates one cluster; the rest of it reads as zero; a clean detach keeps it")
  func firstTouch() throws {
    let disk = try DiskFixture()
    try disk.make("top", geometry)
    let device = try disk.attach(["top"])
    try device.put([1, 2, 3], at: 4096 * 7 + 10)
    #expect(device.mappedClusters == 1)
    try device.close()
    let again = try disk.attach(["top"])
    #expect(try again.bytes(4096 * 7 + 9, 5) == [0, 1, 2, 3, 0])
    #expect(again.repairs.isEmpty)
    try again.close()
    #expect(try disk.folder.open("top", writable: false).size() == 2 * 4096)
  }

  @Test("copy-on-write keeps the other bytes, and never changes the lower delta")
  func copiesOnWrite() throws {
    let disk = try DiskFixture()
    try disk.make("base", geometry)
    let base = try disk.attach(["base"])
    try base.put([UInt8](repeating: 7, count: 8192), at: 4096)
    try base.close()
    let before = try content(disk, "base")
    try disk.make("top", geometry)
    let device = try disk.attach(["base", "top"])
    try device.put([9], at: 5000)
    var expected = [UInt8](repeating: 7, count: 8192)
    expected[5000 - 4096] = 9
    #expect(try device.bytes(4096, 8192) == expected)
    try device.close()
    #expect(try content(disk, "base") == before)
  }

  @Test("a trimmed cluster never brings back what a lower delta holds")
  func trimHidesLower() throws {
    let disk = try DiskFixture()
    try disk.make("base", geometry)
    let base = try disk.attach(["base"])
    try base.put([UInt8](repeating: 7, count: 8192), at: 0)
    try base.close()
    try disk.make("top", geometry)
    let device = try disk.attach(["base", "top"])
    try device.put([1], at: 0)
    try device.discard(offset: 0, length: 8192, durable: true)
    #expect(try device.bytes(0, 8192).allSatisfy { $0 == 0 })
    try device.close()
    let again = try disk.attach(["base", "top"])
    #expect(try again.bytes(0, 8192).allSatisfy { $0 == 0 })
    try again.close()
  }

  @Test("a freed cluster is used again only after a flush, and reads as zero around new bytes")
  func reuse() throws {
    let disk = try DiskFixture()
    try disk.make("top", geometry)
    let device = try disk.attach(["top"])
    try device.put([UInt8](repeating: 5, count: 4096), at: 0)
    try device.flush()
    try device.discard(offset: 0, length: 4096, durable: false)
    try device.put([6], at: 8192)
    #expect(try device.runs(offset: 8192, length: 4096, limit: 1).first?.physical == 2)
    try device.flush()
    try device.put([8], at: 4096)
    #expect(try device.runs(offset: 4096, length: 4096, limit: 1).first?.physical == 1)
    #expect(try device.bytes(4096, 4096) == [8] + [UInt8](repeating: 0, count: 4095))
    try device.close()
  }

  @Test("an unclean image is refused with nothing changed, and repaired when asked")
  func unclean() throws {
    let disk = try DiskFixture()
    try disk.make("top", geometry)
    do {
      let device = try disk.attach(["top"])
      try device.put([1, 2, 3], at: 0, durable: true)
      try device.put([4], at: 20000)
    }
    let before = try content(disk, "top")
    #expect(code(try disk.attach(["top"])) == .unclean)
    #expect(try content(disk, "top") == before)
    let device = try disk.attach(["top"], repair: true)
    #expect(!device.repairs.isEmpty)
    #expect(try device.bytes(0, 3) == [1, 2, 3])
    try device.close()
  }

  @Test("bad entries are refused, each by its name, with nothing changed")
  func badEntries() throws {
    let cases: [(slots: [Int: UInt32], fault: IndexFault.Kind)] = [
      ([0: 1, 1: 1], .duplicate), ([0: 3], .outsideFile), ([0: .max], .reserved),
    ]
    for (slots, fault) in cases {
      let disk = try DiskFixture()
      try disk.make("top", geometry)
      let file = try disk.folder.open("top", writable: true)
      try file.truncate(to: 3 * 4096)
      for (slot, value) in slots {
        let entry = AlignedBuffer(count: 4)
        entry.region.setLittleEndian(value, at: 0)
        try file.write(entry.region, at: UInt64(64 + 4 * slot))
      }
      let before = try content(disk, "top")
      do {
        _ = try disk.attach(["top"], repair: true)
        Issue.record("attached with \(fault)")
      } catch let error as DeviceError {
        guard case .format(let format, _) = error.kind else { throw error }
        #expect(format.code == .corrupt && format.fault?.kind == fault)
      }
      #expect(try content(disk, "top") == before)
    }
  }

  @Test("one file cannot be attached twice, and a chain cannot hold it twice")
  func locks() throws {
    let disk = try DiskFixture()
    try disk.make("top", geometry)
    let device = try disk.attach(["top"])
    #expect(throws: DeviceError.self) { try disk.attach(["top"], repair: true) }
    #expect(throws: DeviceError.self) { try disk.attach(["top"], readonly: true, repair: true) }
    try device.close()
    #expect(throws: DeviceError.self) { try disk.attach(["top", "top"]) }
    try disk.attach(["top"]).close()
  }

  @Test("random requests on a chain agree with a model, across detach and attach", arguments: 1...6)
  func model(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let size = 40 * 4096 - 512 * (seed % 3)
    let version: ImageVersion = seed % 2 == 0 ? .v1 : .v2
    let geometry = Geometry(version: version, clusterShift: 12, sizeBytes: UInt64(size))
    let disk = try DiskFixture()
    var model = [UInt8](repeating: 0, count: size)
    var names: [String] = []
    for level in 0..<3 {
      names.append("delta\(level)")
      try disk.make("delta\(level)", geometry)
      for _ in 0..<2 {
        let device = try disk.attach(names)
        for _ in 0..<120 { try step(device, &model, &random) }
        let mapped = try device.runs(offset: 0, length: UInt64(size), limit: .max)
          .filter { $0.level != nil }.reduce(0) { $0 + ($1.length + 4095) / 4096 }
        #expect(device.mappedClusters == mapped, "seed \(seed)")
        #expect(try device.bytes(0, size) == model, "seed \(seed)")
        try device.close()
      }
    }
    let device = try disk.attach(names, readonly: true)
    #expect(try device.bytes(0, size) == model, "seed \(seed)")
  }

  private func step(
    _ device: Device, _ model: inout [UInt8], _ random: inout SeededGenerator
  ) throws {
    let offset = Int.random(in: 0..<model.count, using: &random)
    let aligned = Bool.random(using: &random)
    let start = aligned ? offset / 4096 * 4096 : offset
    let limit = min(model.count - start, 4096 * 4)
    let count = aligned ? min(limit, 8192) : Int.random(in: 1...limit, using: &random)
    let range = start..<(start + count)
    switch Int.random(in: 0..<8, using: &random) {
    case 0..<4:
      let byte = UInt8.random(in: 1...255, using: &random)
      let bytes = [UInt8](repeating: byte, count: count)
      if Bool.random(using: &random)
        || !device.writeNow(AlignedBuffer(bytes).region, at: UInt64(start))
      {
        try device.put(bytes, at: UInt64(start), durable: Bool.random(using: &random))
      }
      model.replaceSubrange(range, with: bytes)
    case 4, 5:
      try device.writeZeroes(
        offset: UInt64(start), length: UInt64(count),
        keepAllocated: Bool.random(using: &random), onlyIfFast: false, durable: false)
      model.replaceSubrange(range, with: repeatElement(0, count: count))
    case 6:
      guard aligned else { return try device.flush() }
      try device.discard(offset: UInt64(start), length: UInt64(count), durable: false)
      model.replaceSubrange(range, with: repeatElement(0, count: count))
    default: #expect(try device.bytes(UInt64(start), count) == Array(model[range]))
    }
  }

  @Test("many writers of one new cluster allocate it once, and every byte arrives")
  func manyWriters() throws {
    let disk = try DiskFixture()
    try disk.make("top", geometry)
    let device = try disk.attach(["top"])
    let failures = Locked<[String]>([])
    let threads = try (0..<8).map { writer in
      try Thread(name: "writer") {
        for cluster in 0..<40 {
          do {
            try device.write(
              AlignedBuffer([UInt8](repeating: UInt8(writer + 1), count: 512)).region,
              at: UInt64(cluster * 4096 + writer * 512), durable: cluster % 8 == 0)
          } catch { failures.withLock { $0.append("\(error)") } }
        }
      }
    }
    threads.forEach { $0.join() }
    #expect(failures.withLock { $0 }.isEmpty)
    #expect(device.mappedClusters == 40)
    let all = try device.bytes(0, 40 * 4096)
    for position in stride(from: 0, to: all.count, by: 512) {
      #expect(all[position] == UInt8(position / 512 % 8 + 1))
    }
    try device.close()
    #expect(try disk.folder.open("top", writable: false).size() == 41 * 4096)
  }

  private func content(_ disk: DiskFixture, _ name: String) throws -> [UInt8] {
    let file = try disk.folder.open(name, writable: false)
    let buffer = AlignedBuffer(count: Int(try file.size()))
    _ = try file.read(into: buffer.region, at: 0)
    return buffer.region.bytes
  }

  private func code(_ attach: @autoclosure () throws -> Device) -> FormatError.Code? {
    do {
      _ = try attach()
      return nil
    } catch let error as DeviceError {
      guard case .format(let format, _) = error.kind else { return nil }
      return format.code
    } catch { return nil }
  }
}
