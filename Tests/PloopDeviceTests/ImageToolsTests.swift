import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Image tools under faults")
struct ImageToolsTests {
  static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 32 << 20)

  private func bytes(_ name: String, _ fixture: DiskFixture) throws -> [UInt8] {
    let file = try fixture.folder.open(name, writable: false)
    let buffer = AlignedBuffer(count: Int(try file.size()))
    _ = try file.read(into: buffer.region, at: 0)
    return buffer.region.bytes
  }

  /// An image with data, a hole, reserved space and data again.
  private func makeSparse(_ name: String, _ fixture: DiskFixture) throws {
    try fixture.make(name, Self.geometry)
    let disk = try fixture.attach([name])
    for cluster: UInt64 in 0..<4 {
      try disk.put([UInt8](repeating: UInt8(cluster + 1), count: 100), at: cluster << 13)
    }
    try disk.close()
    let file = try fixture.folder.open(name, writable: true)
    let end = try file.size()
    try file.punchHole(offset: end - 3 * 4096, length: 4096)
    try file.punchHole(offset: end - 2 * 4096, length: 4096)
    try file.allocate(offset: end - 2 * 4096, length: 4096)
    try file.sync()
  }

  @Test("Fill writes zeroes where zeroes are read, syncs, and does nothing else")
  func fillIsCrashSafe() throws {
    let trace = IOTrace()
    let fixture = try DiskFixture(probe: trace)
    try makeSparse("a", fixture)
    let before = try bytes("a", fixture)
    let known = trace.events.count
    let filled = try ImageFill.run(fixture.source("a", writable: true))
    #expect(filled >= 2 * 4096)
    // Whatever part of these writes a crash leaves, in whatever order, every byte is the same.
    var written = 0
    for event in trace.events[known...] {
      switch event {
      case .write(_, let offset, let bytes):
        written += bytes.count
        #expect(bytes.allSatisfy { $0 == 0 })
        #expect(before[Int(offset)..<(Int(offset) + bytes.count)].allSatisfy { $0 == 0 })
      case .syncStarted, .synced: break
      default: Issue.record("fill did \(event)")
      }
    }
    #expect(UInt64(written) == filled)
    #expect(try bytes("a", fixture) == before)
    let file = try fixture.folder.open("a", writable: false)
    #expect(try file.nextUnwritten(from: 0, before: UInt64(before.count)) == nil)
  }

  @Test(
    "A fill of which any call fails says so, and the content is what it was",
    arguments: [28, 5] as [Int32])
  func fillFaults(code: Int32) throws {
    let plan = FaultPlan { _, _, _ in nil }
    let fixture = try DiskFixture(probe: plan)
    try makeSparse("a", fixture)
    let before = try bytes("a", fixture)
    var failed = 0
    while true {
      let target = plan.callCount + failed
      plan.replace { call, _, _ in call == target ? .error(code) : nil }
      do throws(DeviceError) {
        _ = try ImageFill.run(try source("a", fixture))
        plan.replace { _, _, _ in nil }
        break
      } catch {
        failed += 1
        if code == 28, case .io = error.kind { Issue.record("\(error) is out of space") }
      }
      plan.replace { _, _, _ in nil }
      #expect(try bytes("a", fixture) == before)
    }
    #expect(failed >= 4, "reads, writes and syncs were failed")
    #expect(try bytes("a", fixture) == before)
  }

  private func source(_ name: String, _ fixture: DiskFixture) throws(DeviceError) -> DeltaSource {
    do {
      return DeltaSource(
        file: try fixture.folder.open(name, writable: true), folder: fixture.folder, name: name)
    } catch { throw DeviceError(error) }
  }

  @Test("A create of which any call fails leaves no file")
  func createFaults() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let fixture = try DiskFixture(probe: plan)
    var failed = 0
    while true {
      let target = plan.callCount + failed
      plan.replace { call, _, _ in call == target ? .error(5) : nil }
      do throws(DeviceError) {
        try ImageCreator.create(in: fixture.folder, name: "a", geometry: Self.geometry)
        break
      } catch {
        failed += 1
        #expect(!fixture.folder.contains("a"))
      }
    }
    plan.replace { _, _, _ in nil }
    #expect(failed >= 5, "create, reserve, write, sync and the folder's sync were failed")
    #expect(try ImageCheck(fixture.folder.open("a", writable: false)).verdict == .clean)
  }

  @Test("A sparse file that is longer than entries can name is a tail, not a crash")
  func endlessFile() throws {
    let geometry = Geometry(version: .v1, clusterShift: 16, sizeBytes: 32 << 20)
    let scan = IndexScan(geometry, fileBytes: UInt64(Int64.max))
    #expect(scan.fileClusters == geometry.physicalLimit + 1)
    #expect(scan.used.count == 1, "the free map is as long as what is used, not as the file")

    let fixture = try DiskFixture()
    try fixture.make("a", geometry)
    let file = try fixture.folder.open("a", writable: true)
    try file.truncate(to: 3 << 40)
    let check = try ImageCheck(file)
    #expect(check.tailBytes == 3 << 40 - geometry.headerBytes)
    let disk = try fixture.attach(["a"])
    try disk.put([1, 2, 3], at: 5 << 20)
    try disk.close()
    #expect(try file.size() == geometry.headerBytes + geometry.clusterBytes)
  }
}
