import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("Hashes of deltas")
struct DeltaHashTests {
  static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 8 << 20)
  private let engine = IOEngine(threadLimit: 4)

  /// Three deltas: the base has every third cluster of 300 and some far ones, the middle every fifth.
  private func disk(_ fixture: DiskFixture, raw: Bool = false) throws -> Device {
    if raw {
      let file = try fixture.folder.create("base")
      try file.write(AlignedBuffer([UInt8](repeating: 7, count: 300 << 12)).region, at: 0)
    } else {
      try fixture.make("base", Self.geometry)
      let base = try fixture.attach(["base"])
      for cluster: UInt64 in stride(from: 0, to: 300, by: 3) {
        try base.put([UInt8(truncatingIfNeeded: cluster), 1], at: cluster << 12)
      }
      for cluster: UInt64 in [1022, 1023, 2046, 2047] { try base.put([9], at: cluster << 12) }
      try base.close()
    }
    try fixture.make("middle", Self.geometry)
    let names = ["base", "middle"]
    let middle = try fixture.attach(names, raw: raw ? ["base"] : [])
    for cluster: UInt64 in stride(from: 0, to: 300, by: 5) {
      try middle.put([5], at: cluster << 12)
    }
    try middle.close()
    try fixture.make("top", Self.geometry)
    return try fixture.attach(names + ["top"], raw: raw ? ["base"] : [])
  }

  private func hash(_ device: Device, limitBytes: UInt64 = 40 << 12) throws -> [HashRun.Level] {
    let run = try HashRun(of: device)
    var read: UInt64 = 0
    while let count = try run.step(limitBytes: limitBytes) { read += count }
    #expect(read == run.levels.map(\.clusters).reduce(0, +))
    return run.levels
  }

  /// Changes a byte of a cluster in its file as a worn disk does: nobody has written it.
  private func rot(_ cluster: UInt64, of name: String, _ fixture: DiskFixture) throws {
    var place = cluster
    let file = try fixture.folder.open(name, writable: true)
    if let geometry = try? Device.geometry(of: file, isRaw: false, like: Self.geometry) {
      var scan = IndexScan(geometry, fileBytes: try file.size())
      try scan.run(file) {
        if $0 == cluster { place = $1 }
      } fault: { _ in
      }
    }
    try Tool.shell(
      """
      cd '\(fixture.folder.path)' && touch -r \(name) stamp
      printf '\\125' | dd of=\(name) bs=1 seek=\((place << 12) + 100) conv=notrunc status=none
      touch -r stamp \(name) && rm stamp
      """)
  }

  @Test(
    "are made once, then held against the deltas; a cluster that has changed by itself is named",
    arguments: [false, true])
  func verify(raw: Bool) throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture, raw: raw)
    let made = try hash(device)
    #expect(made.map(\.outcome) == [.hashed, .hashed])
    #expect(made.map(\.clusters) == [raw ? 300 : 104, 60])
    #expect(fixture.folder.contains("base.hashes") && fixture.folder.contains("middle.hashes"))
    let again = try hash(device)
    #expect(again.map(\.outcome) == [.verified, .verified])
    #expect(again.map(\.clusters) == made.map(\.clusters))

    try rot(33, of: "base", fixture)
    if !raw { try rot(2046, of: "base", fixture) }
    let found = try hash(device, limitBytes: 1)
    #expect(found.map(\.outcome) == [.damaged, .verified])
    #expect(found[0].damaged == (raw ? [33] : [33, 2046]))
    #expect(found[0].damagedCount == UInt64(found[0].damaged.count))
    try device.close()
  }

  @Test(
    "keep a merge from copying what is not what it was, and the disk goes on",
    arguments: [MergeDirection.forward, .backward])
  func merge(direction: MergeDirection) throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture)
    _ = try hash(device)
    let before = try device.bytes(0, 8 << 20)
    let source = direction == .forward ? "base" : "middle"
    try rot(direction == .forward ? 33 : 35, of: source, fixture)
    let merge = try DeltaMerge(of: device, level: 0, direction)
    var failure: DeviceError?
    do throws(DeviceError) {
      while try merge.step(limit: 8, on: engine) != nil {}
    } catch { failure = error }
    guard case .rotten(let cluster)? = failure?.kind else {
      Issue.record("\(String(describing: failure)) is no rot")
      return
    }
    #expect(cluster == (direction == .forward ? 33 : 35))
    #expect(
      failure?.detail.contains("/\(source): cluster \(cluster) ") == true, "\(failure as Any)")
    merge.abandon(until: .never)
    // What guests read is what is there; nothing else has changed.
    var now = try device.bytes(0, 8 << 20)
    let place = Int(cluster << 12) + 100
    #expect(now[place] == 0o125)
    now[place] = before[place]
    #expect(now == before)
    try device.put([1], at: 0)
    try device.close()
    #expect(
      try ChainCheck(["base", "middle", "top"].map { try fixture.source($0) }).verdict == .clean)
  }

  @Test("let a merge of what is sound go through, and go with the receiver's old content")
  func receiver() throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture)
    _ = try hash(device)
    let before = try device.bytes(0, 8 << 20)
    let merge = try DeltaMerge(of: device, level: 0)
    #expect(!fixture.folder.contains("middle.hashes"), "the middle one receives")
    while try merge.step(limit: 64, on: engine) != nil {}
    merge.abandon(until: .never)
    #expect(try device.bytes(0, 8 << 20) == before)
    #expect(try hash(device).map(\.outcome) == [.verified, .hashed])
    try device.close()
  }

  @Test("say nothing of a file that is another one, was written, or whose hashes are damaged")
  func stale() throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture)
    _ = try hash(device)
    func isKnown() throws -> Bool {
      device.forgetHashes()
      try rot(33, of: "base", fixture)
      defer { try? rot(33, of: "base", fixture) }
      do throws(DeviceError) {
        try device.requireSound(offset: 33 << 12, length: 4096)
        return false
      } catch { return true }
    }
    #expect(try isKnown())
    for damage in [
      "touch base", "cp -p base copy; mv copy base.other",
      "printf x | dd of=base.hashes bs=1 seek=60 conv=notrunc status=none",
      "printf x | dd of=base.hashes bs=1 seek=4200 conv=notrunc status=none",
      "truncate -s 5000 base.hashes", "rm base.hashes",
    ] {
      let isOther = damage.hasPrefix("cp")
      try Tool.shell(
        "cd '\(fixture.folder.path)' && cp -p base.hashes kept && touch -r base ref && { \(damage); }"
      )
      #expect(try isKnown() == isOther, "\(damage)")
      try Tool.shell(
        "cd '\(fixture.folder.path)' && mv kept base.hashes && touch -r ref base && rm ref")
      #expect(try isKnown())
    }
    try device.close()
  }

  @Test("are asked by who copies a disk, and not by guests")
  func readers() throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture)
    _ = try hash(device)
    try rot(33, of: "base", fixture)
    #expect(try device.bytes(33 << 12, 4096)[100] == 0o125)
    try device.requireSound(offset: 0, length: 33 << 12)
    #expect(throws: DeviceError.self) {
      try device.requireSound(offset: 30 << 12, length: 5 << 12)
    }
    // A guest has written it: what is beneath matters no more.
    try device.put([UInt8](repeating: 1, count: 4096), at: 33 << 12)
    try device.requireSound(offset: 0, length: 8 << 20)
    try device.close()
  }

  @Test("are not kept of a delta that somebody has written meanwhile")
  func changed() throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture)
    let run = try HashRun(of: device)
    _ = try run.step(limitBytes: 1)
    try Tool.shell("touch '\(fixture.folder.path)/base'")
    while try run.step(limitBytes: 1 << 20) != nil {}
    #expect(run.levels.map(\.outcome) == [.changed, .hashed])
    #expect(!fixture.folder.contains("base.hashes") && !fixture.folder.contains("base.hashes.tmp"))
    try device.close()
  }

  @Test("are made of a disk that is only read, and go when it is written")
  func top() throws {
    let fixture = try DiskFixture()
    try disk(fixture).close()
    let names = ["base", "middle", "top"]
    let reader = try fixture.attach(names, readonly: true)
    #expect(try hash(reader).map(\.outcome) == [.hashed, .hashed, .hashed])
    try reader.close()
    #expect(fixture.folder.contains("top.hashes"))
    let device = try fixture.attach(names)
    #expect(!fixture.folder.contains("top.hashes") && fixture.folder.contains("base.hashes"))
    #expect(try hash(device).map(\.outcome) == [.verified, .verified])
    try device.close()
  }

  @Test("are whole or not there after a failure of any call")
  func faults() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let fixture = try DiskFixture(probe: plan)
    let device = try disk(fixture)
    var failed = 0
    var isHit = true
    while isHit {
      let (target, hits) = (plan.callCount + failed, plan.faultCount)
      plan.replace { call, _, _ in call == target ? .error(5) : nil }
      do throws(DeviceError) {
        let run = try HashRun(of: device)
        while try run.step(limitBytes: 1 << 20) != nil {}
      } catch {}
      plan.replace { _, _, _ in nil }
      isHit = plan.faultCount > hits
      failed += isHit ? 1 : 0
      #expect(!fixture.folder.contains("base.hashes.tmp"))
      let levels = try hash(device)
      #expect(levels.allSatisfy { $0.outcome != .damaged && $0.damagedCount == 0 })
      // Every second time there are hashes to begin with.
      for name in ["base.hashes", "middle.hashes"] where failed % 2 == 0 {
        try fixture.folder.unlink(name)
      }
    }
    #expect(failed > 20, "\(failed)")
    try device.close()
  }
}
