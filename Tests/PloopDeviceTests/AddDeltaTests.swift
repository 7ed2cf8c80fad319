import Glibc
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("A delta that is put below the top")
struct AddDeltaTests {
  private static let cluster = 4096
  private static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 64 * 4096)
  private let fixture: DiskFixture

  init() throws { fixture = try DiskFixture() }

  /// An image in which the given clusters hold a byte.
  private func make(
    _ name: String, _ clusters: [Int], _ byte: UInt8, geometry: Geometry = geometry
  ) throws {
    try fixture.make(name, geometry)
    let device = try fixture.attach([name], locks: [])
    for cluster in clusters {
      let bytes = [UInt8](repeating: byte, count: Self.cluster)
      try device.put(bytes, at: UInt64(cluster * Self.cluster))
    }
    try device.close()
  }

  private func top(suspended: Bool = true) throws -> Device {
    var options = AttachOptions.ofTests
    options.suspended = suspended
    options.descriptorLocks = []
    return try Device.attach([try fixture.source("top", writable: true)], options)
  }

  private func add(
    _ device: Device, _ name: String, isRaw: Bool = false,
    at moment: ([Device.LevelStatus]) throws(DeviceError) -> Void = { _ in }
  ) throws {
    try device.addDelta(
      try fixture.source(name, isRaw: isRaw), until: .after(seconds: 20), at: moment)
  }

  /// The first byte of each cluster.
  private func owners(_ device: Device) throws -> [UInt8] {
    try (0..<64).map { try device.bytes(UInt64($0 * Self.cluster), 1)[0] }
  }

  private func refusal(_ body: () throws -> Void) throws -> String {
    do { try body() } catch let error as DeviceError {
      switch error.kind {
      case .refused(let refusal, _): return refusal.rawValue
      case .format(let format, let level): return "\(format.code.rawValue) at \(level)"
      default: return "\(error.kind)"
      }
    }
    return "none"
  }

  @Test("is asked for what the top lacks, before all that were added earlier")
  func order() throws {
    try fixture.folder.replace(
      "raw", with: [UInt8](repeating: 1, count: 40 * Self.cluster))
    try make("middle", [3, 4, 5, 6], 2)
    try make("newest", [5, 6, 7, 50], 3)
    try make("top", [6, 8], 4)
    let device = try top()
    var seen: [[String]] = []
    for name in ["raw", "middle", "newest"] {
      try add(device, name, isRaw: name == "raw") { levels in
        seen.append(levels.map { String($0.path.split(separator: "/").last ?? "") })
      }
      try expectRebuilt(device, "\(name)")
    }
    #expect(seen.last == ["raw", "middle", "newest", "top"])
    #expect(seen.map(\.count) == [2, 3, 4])
    #expect(device.isSuspended)
    device.resume()
    var expected = [UInt8](repeating: 1, count: 40) + [UInt8](repeating: 0, count: 24)
    for cluster in 3...6 { expected[cluster] = 2 }
    for cluster in [5, 6, 7, 50] { expected[cluster] = 3 }
    for cluster in [6, 8] { expected[cluster] = 4 }
    #expect(try owners(device) == expected)
    // Copy-on-write takes what the new ones hold, and a trim does not bring it back.
    try device.put([9], at: UInt64(50 * Self.cluster + 100))
    #expect(try device.bytes(UInt64(50 * Self.cluster), 1) == [3])
    try device.discard(
      offset: UInt64(7 * Self.cluster), length: UInt64(Self.cluster), durable: false)
    #expect(try device.bytes(UInt64(7 * Self.cluster), 1) == [0])
    try device.flush()
    try expectRebuilt(device)
    try device.close()
    let again = try fixture.attach(["raw", "middle", "newest", "top"], raw: ["raw"], locks: [])
    expected[7] = 0
    #expect(try owners(again) == expected)
    try again.close()
  }

  @Test("a disk that has served requests takes one only while it is suspended")
  func running() throws {
    try make("base", [1], 2)
    try make("other", [2], 3)
    try make("top", [], 0)
    let device = try top(suspended: false)
    try add(device, "base")
    #expect(try device.bytes(UInt64(Self.cluster), 1) == [2])
    #expect(try refusal { try add(device, "other") } == "device-running")
    #expect(device.levels().count == 2)
    #expect(!device.isSuspended)
    // The lock of the one that was refused is free again.
    try ImageLock.acquire(try fixture.source("other", writable: true).file, for: .write)
    try device.suspend(until: .after(seconds: 20))
    try add(device, "other")
    device.resume()
    #expect(try owners(device)[..<3] == [0, 2, 3])
    try device.close()
  }

  @Test("a disk that could not be suspended after all takes none, however late that turns out")
  func notSuspended() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let fixture = try DiskFixture(probe: plan)
    let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 1 << 18)
    for name in ["base", "top"] { try fixture.make(name, geometry) }
    let device = try fixture.attach(["top"])
    try device.put([1], at: 0)
    let pass = try device.admitted()
    // Its round cannot write the index: nothing is suspended then.
    plan.replace { _, operation, path in
      guard case .write(0..<4096, _) = operation, path.hasSuffix("top") else { return nil }
      return .error(28)
    }
    let suspending = try Thread(name: "suspend") { try? device.suspend(until: .never) }
    while !device.gate.isClosed { sched_yield() }
    let source = try fixture.source("base")
    let isLookedAt = Monitor(false)
    let refusal = Locked<DeviceError?>(nil)
    let calls = plan.callCount
    let adding = try Thread(name: "add") {
      isLookedAt.update { $0 = true }
      do throws(DeviceError) {
        try device.addDelta(source, until: .never) { _ in }
      } catch { refusal.withLock { $0 = error } }
    }
    _ = isLookedAt.wait { $0 ? true : nil }
    // It has read all of the file, and waits for the end of the suspending.
    while plan.callCount < calls + 3 { sched_yield() }
    for _ in 0..<1000 { sched_yield() }
    device.gate.leave(pass)
    suspending.join()
    adding.join()
    guard case .refused(.running, _)? = refusal.withLock({ $0?.kind }) else {
      Issue.record("\(String(describing: refusal.withLock { $0 }))")
      return
    }
    #expect(device.levels().count == 1 && !device.isSuspended)
    plan.replace { _, _, _ in nil }
    try device.close()
  }

  @Test("one that does not fit is refused with its reason, and nothing is changed")
  func refused() throws {
    try make("base", [1], 2)
    try make("top", [3], 4)
    let larger = Geometry(version: .v2, clusterShift: 12, sizeBytes: 65 * 4096)
    let smaller = Geometry(version: .v2, clusterShift: 12, sizeBytes: 63 * 4096)
    try make("larger", [], 0, geometry: larger)
    try make("smaller", [], 0, geometry: smaller)
    try make(
      "coarse", [], 0, geometry: Geometry(version: .v2, clusterShift: 13, sizeBytes: 1 << 18))
    try make("old", [], 0, geometry: Geometry(version: .v1, clusterShift: 12, sizeBytes: 1 << 18))
    try make("marked", [], 0)
    var header = Header(new: Self.geometry)
    header.inUse = Header.InUse.open
    try fixture.folder.open("marked", writable: true).write(
      AlignedBuffer(header.encoded).region, at: 0)
    try make("twice", [1, 2], 5)
    let entries = AlignedBuffer([UInt8](repeating: 1, count: 8))
    entries.region.setLittleEndian(UInt32(1), at: 0)
    entries.region.setLittleEndian(UInt32(1), at: 4)
    try fixture.folder.open("twice", writable: true).write(entries.region, at: 64 + 4)
    try fixture.folder.replace("text", with: Array("no image".utf8))
    try fixture.folder.replace("odd", with: [UInt8](repeating: 1, count: 5000))
    try make("held", [], 0)
    let held = try fixture.source("held", writable: true).file
    try ImageLock.acquire(held, for: .write)

    let device = try top()
    let before = try device.layout(offset: 0, length: 1 << 30, limit: 1000)
    #expect(try refusal { try add(device, "odd", isRaw: true) } == "image-raw-size-misaligned at 0")
    try add(device, "base")
    let after = try device.layout(offset: 0, length: 1 << 30, limit: 1000)
    #expect(before != after)
    for (name, reason) in [
      ("larger", "geometry-mismatch at 1"), ("smaller", "geometry-mismatch at 0"),
      ("coarse", "geometry-mismatch at 1"), ("old", "geometry-mismatch at 1"),
      ("marked", "image-unclean at 1"), ("twice", "image-corrupt at 1"),
      ("text", "image-truncated at 1"), ("held", "locked"), ("top", "sameFileTwice"),
      ("base", "sameFileTwice"),
    ] {
      #expect(try refusal { try add(device, name) } == reason, "\(name)")
      #expect(try device.layout(offset: 0, length: 1 << 30, limit: 1000) == after, "\(name)")
      #expect(device.levels().count == 2)
    }
    #expect(try refusal { try add(device, "odd", isRaw: true) } == "rawNotBase")
    try make("good", [], 0)
    let unrecorded = try refusal {
      try add(device, "good") { _ throws(DeviceError) in
        throw DeviceError(.refused(.unrecorded), "no")
      }
    }
    #expect(unrecorded == "io-error")
    #expect(device.levels().count == 2)
    try expectRebuilt(device)
    device.resume()
    #expect(try owners(device)[..<4] == [0, 2, 0, 4])
    try device.close()
  }

  @Test("255 fit below a top, and no more")
  func limit() throws {
    try make("top", [], 0)
    let device = try top()
    for number in 0..<255 {
      try make("d\(number)", [number % 64], UInt8(number + 1))
      try add(device, "d\(number)")
    }
    try make("more", [], 0)
    #expect(try refusal { try add(device, "more") } == "tooManyDeltas")
    try expectRebuilt(device)
    device.resume()
    // The last one of each cluster counts.
    #expect(try owners(device) == (0..<64).map { UInt8($0 < 63 ? 193 + $0 : 192) })
    try device.close()
  }
}
