import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Forced repair")
struct ForcedRepairTests {
  @Test(
    "makes images with bad entries such that QEMU and OpenVZ find nothing, and keeps what was readable",
    arguments: Refusal.entries)
  func entries(refusal: Refusal) throws {
    let bench = try refusal.make()
    let sources = { try refusal.names.map { try bench.source($0, writable: true) } }
    let before = try readable(bench, refusal.names)
    let found = try ChainCheck(sources())
    let plan = try #require(found.repairPlan)
    #expect(plan.isNeeded && found.verdict == .corrupt)
    #expect(throws: DeviceError.self) { try ForcedRepair.run(try sources(), plan: "other") }
    #expect(try ChainCheck(sources()).repairPlan?.digest == plan.digest)

    let done = try ForcedRepair.run(sources(), plan: plan.digest)
    #expect(!done.isEmpty)
    #expect(try ChainCheck(sources()).verdict == .clean)
    for name in refusal.names where try bench.header(name).clusterSectors >= 64 {
      try QEMU.expectSound(bench.path(name))
      try Tool.shell("cp --sparse=never '\(bench.path(name))' '\(bench.path("full"))'")
      try OpenVZ.expectSound(bench.path("full"))
      try bench.folder.unlink("full")
    }
    let after = try readable(bench, refusal.names)
    for (cluster, bytes) in before { #expect(after[cluster] == bytes, "\(cluster)") }
  }

  /// The first bytes of each cluster that an entry leads to, by level and number.
  private func readable(_ bench: Bench, _ names: [String]) throws -> [String: [UInt8]] {
    var found: [String: [UInt8]] = [:]
    for name in names {
      let file = try bench.folder.open(name, writable: false)
      let geometry = try bench.header(name).geometry(fileBytes: try file.size())
      var scan = IndexScan(geometry, fileBytes: try file.size())
      var places: [UInt64: UInt64] = [:]
      try scan.run(file) {
        places[$0] = $1
      } fault: { _ in
      }
      for (cluster, place) in places {
        found["\(name) \(cluster)"] = try bench.bytes(
          name, at: place << UInt64(geometry.clusterShift), count: 4096)
      }
    }
    return found
  }

  @Test("is taken back by putting its copies into the image")
  func back() throws {
    let bench = try Bench()
    try bench.makeImage("image", Refusal.sample(), entries: [0: 1, 5: 3, 9: 2])
    try bench.setEntry("image", slot: 5, to: 77)
    try Tool.shell("cp '\(bench.path("image"))' '\(bench.path("copy"))'")
    let plan = try RepairPlan(of: [bench.source("image")])
    _ = try ForcedRepair.run([bench.source("image", writable: true)], plan: plan.digest)
    let device = try bench.attach(["image"])
    #expect(try device.bytes(5 << 16, 2) == [0, 0])
    try device.close()
    #expect(try bench.sizeBytes("image") == 3 << 16)
    let name = plan.digest.prefix(12)
    try Tool.shell(
      """
      cd '\(bench.folder.path)'
      dd if=image.index-backup-\(name) of=image conv=notrunc status=none
      dd if=image.lost-\(name) of=image bs=64K conv=notrunc,sparse status=none
      cmp image copy
      """)
  }

  @Test("refuses what it cannot know, and what is in use")
  func refusals() throws {
    let bench = try Bench()
    try bench.makeImage("image", Refusal.sample(), entries: [0: 1])
    try bench.changeHeader("image") { $0.firstBlockSector = 256 }
    #expect(throws: DeviceError.self) { try RepairPlan(of: [bench.source("image")]) }
    #expect(try ChainCheck([bench.source("image")]).repairPlan == nil)

    try bench.makeImage("other", Refusal.sample(), entries: [0: 1, 5: 3, 9: 2])
    try bench.setEntry("other", slot: 5, to: 1)
    let plan = try RepairPlan(of: [bench.source("other")])
    let before = try bench.fingerprint()
    let reader = try bench.source("other")
    try ImageLock.acquire(reader.file, for: .read)
    let error = #expect(throws: DeviceError.self) {
      try ForcedRepair.run([bench.source("other", writable: true)], plan: plan.digest)
    }
    guard case .locked? = error?.kind else {
      Issue.record("\(String(describing: error)) is no lock")
      return
    }
    #expect(try bench.fingerprint() == before)
  }
}
