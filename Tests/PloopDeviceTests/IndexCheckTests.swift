import PloopFormat
import PloopIO
import Synchronization
import TestSupport
import Testing

@testable import PloopDevice

@Suite("Indexes that are checked behind the attach")
struct IndexCheckTests {
  private static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 5_200 << 12)
  /// In three pages of the index each.
  private static let clusters = stride(from: 0 as UInt64, to: 2_400, by: 100)

  /// Holds the check when it is about to read an index, which it does in pieces of several pages.
  private final class Hold: Sendable {
    private struct State {
      var isArmed = false
      var isMet = false
    }
    private let state = Monitor(State())

    var plan: FaultPlan {
      FaultPlan { [self] _, operation, _ in
        guard case .read(let offset, let count) = operation,
          offset < IndexCheckTests.geometry.headerBytes, count > Geometry.pageBytes,
          state.withLock({ $0.isArmed })
        else { return nil }
        return .stall { [self] in
          state.update { $0.isMet = true }
          _ = state.wait(until: .after(seconds: 120)) { $0.isArmed ? nil : true }
        }
      }
    }

    func arm() { state.update { $0.isArmed = true } }
    func open() { state.update { $0.isArmed = false } }
    func awaitCheck() -> Bool {
      state.wait(until: .after(seconds: 120)) { $0.isMet ? true : nil } ?? false
    }
  }

  private func attach(
    _ fixture: DiskFixture, _ names: [String], repair: Bool = false, engine: IOEngine? = nil,
    readonly: Bool = false, checks: CheckQueue = .shared
  ) throws -> Device {
    var options = AttachOptions.ofTests
    options.indexCache = fixture.indexCache
    options.promptIndexBytes = 0
    options.engine = engine
    options.descriptorLocks = []
    options.repairSafely = repair
    options.readonly = readonly
    options.checks = checks
    return try Device.attach(
      names.map { try fixture.source($0, writable: $0 == names.last) }, options)
  }

  /// A disk of two deltas that have the same clusters, and the upper one every second one besides.
  private func fixture(_ hold: Hold? = nil) throws -> DiskFixture {
    let fixture = try DiskFixture(probe: hold?.plan)
    for (number, name) in ["base", "top"].enumerated() {
      try fixture.make(name, Self.geometry)
      let device = try fixture.attach([name], locks: [])
      for cluster in Self.clusters {
        let place = cluster + UInt64(number) * (cluster / 100 % 2)
        try device.put([UInt8(cluster / 100 + 1) + UInt8(number * 100)], at: place << 12)
      }
      try device.close()
    }
    return fixture
  }

  private func expectContent(_ device: Device) throws {
    for cluster in Self.clusters {
      let value = UInt8(cluster / 100 + 1)
      let isBoth = cluster / 100 % 2 == 0
      #expect(try device.bytes(cluster << 12, 1) == [isBoth ? value + 100 : value])
      if !isBoth { #expect(try device.bytes((cluster + 1) << 12, 1) == [value + 100]) }
    }
  }

  @Test("reads are served while it goes on, what changes the disk waits, and so does its end")
  func held() throws {
    let hold = Hold()
    let fixture = try fixture(hold)
    hold.arm()
    defer { hold.open() }
    let device = try attach(fixture, ["base", "top"])
    #expect(hold.awaitCheck())
    try expectContent(device)
    #expect(device.failure == nil && !device.condition.isWritable)
    let bytes = AlignedBuffer([UInt8](repeating: 9, count: 4096)).region
    #expect(!device.writeNow(bytes, at: 0))
    // There is nothing that it could wait for.
    try device.flush()
    let error = #expect(throws: DeviceError.self) {
      try device.suspend(until: .after(milliseconds: 20))
    }
    #expect(error.map { if case .timeout = $0.kind { true } else { false } } == true)
    let isWritten = Atomic(false)
    let writer = try Thread(name: "guest") {
      try? device.put([9], at: 4_000 << 12)
      isWritten.store(true, ordering: .releasing)
    }
    #expect(try device.bytes(4_000 << 12, 1) == [0])
    #expect(isWritten.load(ordering: .acquiring) == false)
    hold.open()
    writer.join()
    #expect(try device.bytes(4_000 << 12, 1) == [9])
    try expectContent(device)
    try device.flush()
    try expectRebuilt(device)
    #expect(device.mappedClusters == 24 + 12 + 1)
    #expect(device.levels()[0].mappedClusters == 24 && device.levels()[1].mappedClusters == 25)
    #expect(device.holesInTop == 0)
    #expect(device.chain.deltas[0].had.clusters?.contains(100) == true)
    try device.close()
    #expect(try ChainCheck(["base", "top"].map { try fixture.source($0) }).verdict == .clean)
  }

  @Test("a detach does not wait for it, and leaves the file as it was")
  func detached() throws {
    let hold = Hold()
    let fixture = try fixture(hold)
    let before = try fixture.folder.bytes(of: "top", limit: 1 << 20)
    hold.arm()
    defer { hold.open() }
    let device = try attach(fixture, ["base", "top"])
    #expect(hold.awaitCheck())
    let refused = Monitor<DeviceError?>(nil)
    let writer = try Thread(name: "guest") {
      do { try device.put([9], at: 4_000 << 12) } catch {
        refused.withLock { $0 = error as? DeviceError }
      }
    }
    try device.detach(until: .after(seconds: 120))
    writer.join()
    #expect(
      refused.withLock { $0 }.map { if case .detached = $0.kind { true } else { false } } == true)
    #expect(device.failure == nil)
    // Nor does anybody wait for the count.
    #expect(device.condition.isCounted)
    #expect(device.mappedClusters <= 36)
    hold.open()
    // What goes on reading changes nothing any more.
    #expect(try fixture.folder.bytes(of: "top", limit: 1 << 20) == before)
    let again = try fixture.attach(["base", "top"], locks: [])
    try expectContent(again)
    try again.close()
  }

  @Test("writes that wait for it keep the engine's threads from nobody")
  func aside() throws {
    let hold = Hold()
    let fixture = try fixture(hold)
    hold.arm()
    defer { hold.open() }
    let engine = IOEngine(threadLimit: 1)
    defer { engine.stop(until: .after(seconds: 120)) }
    let device = try attach(fixture, ["base", "top"], engine: engine)
    #expect(hold.awaitCheck())
    let ended = Monitor(0)
    for cluster in 3_000..<3_004 as Range<UInt64> {
      engine.submit {
        try? device.put([5], at: cluster << 12)
        ended.update { $0 += 1 }
      }
    }
    let isRead = Monitor(false)
    engine.submit { isRead.update { $0 = true } }
    #expect(isRead.wait(until: .after(seconds: 120)) { $0 ? true : nil } == true)
    #expect(ended.withLock { $0 } == 0)
    hold.open()
    #expect(ended.wait(until: .after(seconds: 120)) { $0 == 4 ? true : nil } == true)
    #expect(try device.bytes(3_003 << 12, 1) == [5])
    try device.close()
  }

  @Test("writes that wait for it are kept on no thread", arguments: [false, true])
  func kept(isGivenUp: Bool) throws {
    let hold = Hold()
    let fixture = try fixture(hold)
    hold.arm()
    defer { hold.open() }
    let device = try attach(fixture, ["base", "top"])
    #expect(hold.awaitCheck())
    let calls = Monitor(0)
    #expect(device.keepChange { calls.update { $0 += 1 } })
    // Reads do not wait for it.
    #expect(!device.keep({}) && calls.withLock { $0 } == 0)
    if isGivenUp { device.giveUpCheck() } else { hold.open() }
    #expect(calls.wait(until: .after(seconds: 120)) { $0 > 0 ? true : nil } == true)
    #expect(device.isChecked && !device.keepChange({}))
    #expect(calls.withLock { $0 } == 1)
    #expect((try? device.put([1], at: 0)) == nil || !isGivenUp)
    try device.close()
  }

  private struct Weak {
    weak var file: ImageFile?
  }

  @Test("a disk that is detached before its turn has come keeps no file open")
  func queued() throws {
    let fixture = try fixture()
    let queue = CheckQueue(workerLimit: 0)
    var device: Device? = try attach(fixture, ["base", "top"], checks: queue)
    let top = Weak(file: device?.chain.top.file)
    #expect(top.file != nil && device?.isChecked == false)
    try device?.detach(until: .after(seconds: 120))
    device = nil
    #expect(top.file == nil)
  }

  @Test("marks of what an image has are not handed out before its index has been checked")
  func tracked() throws {
    let fixture = try fixture()
    let unchecked = try attach(fixture, ["base", "top"], checks: CheckQueue(workerLimit: 0))
    let error = #expect(throws: DeviceError.self) {
      _ = try Tracker(.image, of: unchecked, until: .after(milliseconds: 1))
    }
    #expect(error.map { if case .timeout = $0.kind { true } else { false } } == true)
    try unchecked.detach(until: .after(seconds: 120))
    let device = try attach(fixture, ["base", "top"])
    let tracker = try Tracker(.image, of: device, until: .after(seconds: 120))
    // The header, which an index of 5,200 entries makes six clusters long, and what is mapped.
    let used = try #require(device.chain.writing?.allocator.usedClusters)
    #expect(used.setCount > 24)
    let marks = tracker.marks.takeAll()
    #expect(marks.runs == used.runs)
    try tracker.end(until: .after(seconds: 120))
    try device.close()
  }

  @Test("whoever waits for a check that is given up is told that the disk is closed")
  func closed() throws {
    let fixture = try fixture()
    let device = try attach(fixture, ["base", "top"], checks: CheckQueue(workerLimit: 0))
    let kinds = Monitor<[Bool]>([])
    let waiter = try Thread(name: "waiter") {
      do throws(DeviceError) { try device.requireChecked(until: .after(seconds: 120)) } catch {
        let isDetached = if case .detached = error.kind { true } else { false }
        kinds.update { $0.append(isDetached) }
      }
    }
    device.giveUpCheck()
    waiter.join()
    #expect(kinds.withLock { $0 } == [true])
    try device.detach(until: .after(seconds: 120))
    // Nor is anything changed while nobody is inside.
    let late = #expect(throws: DeviceError.self) {
      _ = try device.whileClosed(until: .after(seconds: 120)) {}
    }
    #expect(late.map { if case .detached = $0.kind { true } else { false } } == true)
  }

  @Test("of a disk that is only read all deltas are counted")
  func readonly() throws {
    let fixture = try fixture()
    let device = try attach(fixture, ["base", "top"], readonly: true)
    #expect(device.condition.awaitCheck(until: .after(seconds: 120)))
    #expect(device.levels().map(\.mappedClusters) == [24, 24])
    try device.close()
  }

  @Test("what lies behind the last cluster is cut, and free places are used")
  func free() throws {
    let fixture = try fixture()
    let file = try fixture.folder.open("top", writable: true)
    let bytes = try file.size()
    try file.truncate(to: bytes + 5 << 12)
    let device = try attach(fixture, ["base", "top"])
    #expect(device.condition.awaitCheck(until: .after(seconds: 120)))
    #expect(try file.size() == bytes)
    // Nothing lies beneath this one.
    try device.discard(offset: 101 << 12, length: 4096, durable: true)
    try device.flush()
    device.chain.writing?.allocator.reap()
    #expect(device.holesInTop == 1)
    try device.put([7], at: 5_000 << 12)
    #expect(device.holesInTop == 0)
    try device.flush()
    try expectRebuilt(device)
    try device.close()
  }

  @Test(
    "a fault that it finds takes no more writes, and the image stays marked", arguments: [0, 1])
  func fault(level: Int) throws {
    let fixture = try fixture()
    let name = ["base", "top"][level]
    let tool = ForeignTool(in: fixture.folder)
    let index = try tool.index(of: name)
    let other = level == 0 ? 100 : 101
    try tool.set([3_000: index[other]], in: name)
    let device = try attach(fixture, ["base", "top"])
    #expect(device.condition.awaitCheck(until: .after(seconds: 120)))
    let failure = try #require(device.failure)
    #expect(failure.contains("duplicate-entry"), "\(failure)")
    try expectContent(device)
    let error = #expect(throws: DeviceError.self) { try device.put([1], at: 0) }
    #expect(error.map { if case .degraded = $0.kind { true } else { false } } == true)
    #expect(throws: DeviceError.self) { try device.flush() }
    try device.close()
    // Closing has not made it look as if all were well.
    let refused = #expect(throws: DeviceError.self) {
      try fixture.attach(["base", "top"], repair: true, locks: [])
    }
    #expect(refused.map { if case .format = $0.kind { true } else { false } } == true)
  }

  @Test("an image that nobody has closed is checked and repaired before it is attached")
  func unclean() throws {
    let fixture = try fixture()
    let file = try fixture.folder.open("top", writable: true)
    var header = try Device.header(of: file)
    header.markOpen()
    try Device.write(header, to: file)
    let device = try attach(fixture, ["base", "top"], repair: true)
    #expect(device.condition.isWritable && !device.repairs.isEmpty)
    try expectContent(device)
    try device.close()
    // What somebody has put behind the disk's end is refused, as without.
    try file.write(AlignedBuffer([1, 0, 0, 0]).region, at: (Geometry.headerSlots + 5_200) * 4)
    #expect(throws: DeviceError.self) { try attach(fixture, ["base", "top"]) }
  }
}
