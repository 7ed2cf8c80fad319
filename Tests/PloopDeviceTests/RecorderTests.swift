import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// What a recorder hears of a disk's changes, and when.
@Suite("Recorders")
struct RecorderTests {
  private static let cluster = 16 << 10

  /// Notes what it is told, with the disk's first byte of the range at that moment.
  private final class Witness: Recorder {
    struct State {
      var asked: [Range<UInt64>] = []
      var marked: [Range<UInt64>] = []
      /// What reads found when the range was marked.
      var found: [UInt8] = []
      var parked = 0
      var isInTheWay = false
    }

    let state = Monitor(State())
    let device: Device

    init(_ device: Device) { self.device = device }

    func mayOverwrite(_ range: Range<UInt64>) -> Bool {
      state.withLock { state in
        state.asked.append(range)
        return !state.isInTheWay
      }
    }

    func willOverwrite(_ range: Range<UInt64>) throws(DeviceError) {
      state.update { $0.parked += 1 }
      _ = state.wait { $0.isInTheWay ? nil : true }
    }

    func mark(_ range: Range<UInt64>) {
      let buffer = AlignedBuffer(count: 1)
      var holes = HoleList()
      try? device.read(into: buffer.region, at: range.lowerBound, holes: &holes)
      state.update { state in
        state.marked.append(range)
        state.found.append(buffer.region.bytes[0])
      }
    }

    var heard: State { state.withLock { $0 } }
  }

  private func recorded(_ bench: ChainBench) throws -> Witness {
    let witness = Witness(bench.device)
    _ = try bench.device.beginRecording(witness, until: .after(seconds: 600))
    return witness
  }

  @Test("every way to change a disk asks first, and is marked when its bytes can be read")
  func everyWay() throws {
    let bench = try ChainBench()
    let device = bench.device
    let cluster = UInt64(Self.cluster)
    try bench.write(0, [UInt8](repeating: 1, count: 4 * Self.cluster))
    try bench.snapshot()
    try bench.write(3 * Self.cluster, [UInt8](repeating: 2, count: Self.cluster))
    let witness = try recorded(bench)
    let nine = AlignedBuffer([UInt8](repeating: 9, count: 512)).region

    var expected: [(Range<UInt64>, UInt8)] = []
    func changes(_ offset: UInt64, _ length: UInt64, _ first: UInt8, _ body: () throws -> Void)
      rethrows
    {
      try body()
      expected.append((offset..<offset + length, first))
      let heard = witness.heard
      #expect(heard.marked == expected.map(\.0), "one mark for each change")
      #expect(heard.found == expected.map(\.1), "marked behind the bytes")
      #expect(heard.asked.last == expected.last?.0)
      #expect(heard.asked.count == heard.marked.count)
    }
    // In place, at once and on the engine.
    changes(3 * cluster, 512, 9) { #expect(device.writeNow(nine, at: 3 * cluster)) }
    try changes(3 * cluster + 7, 512, 9) {
      try device.write(nine, at: 3 * cluster + 7, durable: true)
    }
    // First touches.
    changes(5 * cluster, 512, 9) { #expect(device.writeNow(nine, at: 5 * cluster)) }
    try changes(6 * cluster - 8, 512, 9) {
      try device.write(nine, at: 6 * cluster - 8, durable: false)
    }
    // Copy-on-write.
    try changes(0, 512, 9) { try device.write(nine, at: 0, durable: false) }
    try changes(0, cluster, 0) {
      try device.discard(offset: 0, length: cluster, durable: false)
    }
    // A part of a cluster of the top, and one of a lower delta, where a trim changes nothing.
    try changes(3 * cluster, 4096, 0) {
      try device.discard(offset: 3 * cluster, length: 4096, durable: false)
    }
    try changes(2 * cluster, 4096, 1) {
      try device.discard(offset: 2 * cluster, length: 4096, durable: false)
    }
    try changes(cluster, 2 * cluster + 1, 0) {
      try device.writeZeroes(
        offset: cluster, length: 2 * cluster + 1, keepAllocated: true, onlyIfFast: false,
        durable: false)
    }
    _ = try device.endRecording(witness, until: .after(seconds: 600))
    #expect(device.writeNow(nine, at: 3 * cluster))
    #expect(witness.heard.marked.count == expected.count, "nothing is heard behind the end")
    try device.close()
  }

  @Test("merging moves bytes and changes none: it asks nobody")
  func merging() throws {
    let bench = try ChainBench()
    try bench.write(0, [UInt8](repeating: 1, count: 4 * Self.cluster))
    try bench.snapshot()
    let witness = try recorded(bench)
    witness.state.update { $0.isInTheWay = true }
    try bench.merge(level: 0)
    #expect(witness.heard.asked.isEmpty && witness.heard.marked.isEmpty)
    try bench.check()
    try bench.device.close()
  }

  @Test("a change that may not be made yet waits outside the gate, and has changed nothing")
  func parked() throws {
    let bench = try ChainBench()
    let device = bench.device
    try bench.write(0, [UInt8](repeating: 1, count: Self.cluster))
    let witness = try recorded(bench)
    witness.state.update { $0.isInTheWay = true }
    let nine = AlignedBuffer([UInt8](repeating: 9, count: 512)).region
    #expect(!device.writeNow(nine, at: 0), "a thread that may not wait is sent away")
    let ended = Monitor(false)
    try Thread(name: "writer") {
      if (try? device.write(nine, at: 0, durable: false)) != nil { ended.update { $0 = true } }
    }.detach()
    #expect(witness.state.wait(until: .after(seconds: 600)) { $0.parked > 0 ? true : nil } == true)
    #expect(try device.bytes(0, 1) == [1])
    #expect(witness.heard.marked.isEmpty)
    // Nobody who closes the gate waits for it.
    try device.suspend(until: .after(seconds: 600))
    witness.state.update { $0.isInTheWay = false }
    #expect(ended.withLock { !$0 })
    device.resume()
    #expect(ended.wait(until: .after(seconds: 600)) { $0 ? true : nil } == true)
    #expect(try device.bytes(0, 1) == [9])
    #expect(witness.heard.marked == [0..<512])
    try device.close()
  }

  @Test("a change that fails is marked all the same: a part of it may be there")
  func failed() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    let device = bench.device
    try bench.write(0, [UInt8](repeating: 1, count: Self.cluster))
    let witness = try recorded(bench)
    plan.replace { _, operation, _ in
      guard case .write(let offset, _) = operation, offset > UInt64(Self.cluster) + 512 else {
        return nil
      }
      return .error(5)
    }
    let region = AlignedBuffer([UInt8](repeating: 9, count: 2 * Self.cluster)).region
    #expect(!device.writeNow(region, at: 0))
    #expect(witness.heard.marked == [0..<UInt64(2 * Self.cluster)])
    #expect(throws: DeviceError.self) { try device.write(region, at: 0, durable: false) }
    #expect(witness.heard.marked.count == 2)
    plan.replace { _, _, _ in nil }
    try device.close()
  }

  @Test(
    "a recorder hears of everything behind the instant at which it begins, and of nothing before")
  func instant() throws {
    let bench = try ChainBench()
    let device = bench.device
    try bench.write(0, [UInt8](repeating: 1, count: Self.cluster))
    // Writers write ever higher numbers into a place of their own.
    let places = 4
    let stop = Monitor(false)
    let running = Monitor(places)
    for place in 0..<places {
      try Thread(name: "writer") {
        var value: UInt8 = 1
        while !stop.withLock({ $0 }) {
          value = value == 255 ? 1 : value + 1
          let region = AlignedBuffer([value]).region
          if !device.writeNow(region, at: UInt64(place)) {
            try? device.write(region, at: UInt64(place), durable: false)
          }
        }
        running.update { $0 -= 1 }
      }.detach()
    }
    let witness = Witness(device)
    var before: [UInt8] = []
    _ = try device.beginRecording(witness, until: .after(seconds: 600)) { () throws(DeviceError) in
      let runs = try device.layout(offset: 0, length: 1, limit: 1)
      let buffer = AlignedBuffer(count: places)
      let offset = (runs[0].physical ?? 0) * UInt64(Self.cluster)
      let file = try? bench.fixture.folder.open("root.hds", writable: false)
      _ = try? file?.read(into: buffer.region, at: offset)
      before = buffer.region.bytes
    }
    _ = witness.state.wait(until: .after(seconds: 600)) { $0.marked.count > 50 ? true : nil }
    stop.update { $0 = true }
    _ = running.wait(until: .after(seconds: 600)) { $0 == 0 ? true : nil }
    let heard = witness.heard
    for place in 0..<places {
      let count = heard.marked.count { $0.lowerBound == UInt64(place) }
      let last = try device.bytes(UInt64(place), 1)[0]
      // 255 values, each one more than the last.
      #expect((Int(last) + 255 * 1_000_000 - Int(before[place])) % 255 == count % 255)
    }
    try device.close()
  }
}
