import Foundation
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// Images damaged at random: `make damage` tries 10,000, every test run some of them.
@Suite("Random damage")
struct RandomDamageTests {
  private static var count: Int {
    ProcessInfo.processInfo.environment["PLOOPD_DAMAGE"].flatMap { Int($0) } ?? 200
  }
  private static var firstSeed: UInt64 {
    ProcessInfo.processInfo.environment["PLOOPD_SEED"].flatMap { UInt64($0) } ?? 1
  }

  @Test(
    "is never called clean where it is none, changes no byte without repair, and repair loses nothing"
  )
  func damage() throws {
    let first = Self.firstSeed
    print("seeds \(first) to \(first + UInt64(Self.count) - 1)")
    var verdicts: [ImageCheck.Verdict: Int] = [:]
    for number in 0..<UInt64(Self.count) {
      let seed = first + number
      let damaged = try DamagedDisk(seed: seed)
      do { verdicts[try damaged.judge(), default: 0] += 1 } catch {
        Issue.record("seed \(seed): \(error)")
      }
    }
    print("verdicts: \(verdicts)")
    // Not all damage is of one kind, or nothing was tested.
    #expect(verdicts.count == 3)
  }
}

/// One or two small images, damaged as its seed says.
private struct DamagedDisk {
  private struct Wrong: Error, CustomStringConvertible {
    let description: String
  }

  private let bench: Bench
  private let names: [String]
  private let hasQEMU: Bool

  init(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    bench = try Bench(beneath: "/dev/shm")
    names = Bool.random(using: &random) ? ["image"] : ["base", "image"]
    // Starting it takes longer than everything else.
    hasQEMU = Int.random(in: 0..<8, using: &random) == 0
    let version = Bool.random(using: &random) ? ImageVersion.v2 : .v1
    // A third has an index of two clusters.
    let clusters: UInt64 = Int.random(in: 0..<3, using: &random) == 0 ? 1500 : 40
    let geometry = Geometry(version: version, clusterShift: 12, sizeBytes: clusters << 12)
    for name in names {
      var entries: [UInt64: UInt64] = [:]
      var places = Array(geometry.headerClusters..<geometry.headerClusters + 12)
      places.shuffle(using: &random)
      for place in places.prefix(Int.random(in: 0...12, using: &random)) {
        entries[UInt64.random(in: 0..<clusters, using: &random)] = place
      }
      try bench.makeImage(name, geometry, entries: entries)
    }
    let victim = names.randomElement(using: &random) ?? "image"
    for _ in 0..<Int.random(in: 0...3, using: &random) {
      try damage(victim, geometry, &random)
    }
  }

  private func damage(
    _ name: String, _ geometry: Geometry, _ random: inout SeededGenerator
  ) throws {
    let size = try bench.sizeBytes(name)
    func anywhere(_ end: UInt64) -> UInt64 { UInt64.random(in: 0..<max(1, end), using: &random) }
    switch Int.random(in: 0..<9, using: &random) {
    case 0:  // a field of the header
      let value = Bool.random(using: &random) ? anywhere(1 << 32) : anywhere(300)
      try overwrite(name, at: 16 + 4 * anywhere(12), UInt32(truncatingIfNeeded: value))
    case 1, 2:  // an entry, near what it could be
      let value = geometry.version == .v1 ? anywhere(20) * 8 + anywhere(8) / 7 : anywhere(20)
      try bench.setEntry(name, slot: anywhere(geometry.clusterCount), to: UInt32(value))
    case 3:  // an entry, anything
      try bench.setEntry(
        name, slot: anywhere(geometry.headerBytes / 4 - 16),
        to: UInt32(truncatingIfNeeded: anywhere(1 << 33)))
    case 4: try bench.truncate(name, to: anywhere(size + 1))
    case 5: try bench.truncate(name, to: size + anywhere(3 << 12))
    case 6: try overwrite(name, at: 44, Header.InUse.open)
    case 7:  // a bit of header or index
      let place = anywhere(min(size, geometry.headerBytes))
      guard let byte = try bench.bytes(name, at: place, count: 1).first else { return }
      try bench.overwrite(name, at: place, with: [byte ^ 1 << UInt8(anywhere(8))])
    default:  // an extension that is none, or somewhere
      try overwrite(name, at: 56, UInt32(anywhere(20) * 8))
    }
  }

  private func overwrite(_ name: String, at offset: UInt64, _ value: UInt32) throws {
    try bench.overwrite(
      name, at: offset, with: (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) })
  }

  // MARK: Judging

  private func sources(writable: Bool = false) throws -> [DeltaSource] {
    try names.map { try bench.source($0, writable: writable) }
  }

  private func all() throws -> [[UInt8]] {
    try names.map { try bench.bytes($0, count: Int(try bench.sizeBytes($0))) }
  }

  private func require(_ isTrue: Bool, _ words: String) throws {
    guard isTrue else { throw Wrong(description: words) }
  }

  func judge() throws -> ImageCheck.Verdict {
    let before = try all()
    let found = try ChainCheck(sources())
    try require(
      (found.verdict == .clean) == found.levels.allSatisfy { $0.faults.isEmpty }
        && found.mismatch == nil || found.mismatch != nil,
      "faults and verdict do not fit")
    let content = try attachReadOnly(found)
    try require(try all() == before, "looking at it has changed it")
    switch found.verdict {
    case .clean:
      try require(content != nil, "it is clean, and is not attached")
      try askQEMU(content ?? [])
    case .repairable: try repair(found, content)
    case .corrupt: try repairByForce(found)
    }
    return found.verdict
  }

  /// What the disk reads as, by a reader of this file; nil where it is refused, as it has to be.
  private func attachReadOnly(_ found: ChainCheck) throws -> [UInt8]? {
    let device: Device
    do {
      device = try bench.attach(names, readonly: true, repair: found.verdict == .repairable)
    } catch let error as DeviceError {
      try require(found.verdict == .corrupt, "it is \(found.verdict), and refused: \(error)")
      return nil
    }
    defer { try? device.close() }
    try require(found.verdict != .corrupt, "it is corrupt, and attached")
    let bytes = try device.bytes(0, Int(device.geometry.sizeBytes))
    try require(bytes == (try model(Int(device.geometry.sizeBytes))), "it reads as something else")
    return bytes
  }

  /// The disk as the entries say, read by other code than that under test.
  private func model(_ size: Int) throws -> [UInt8] {
    var disk = [UInt8](repeating: 0, count: size)
    for name in names {
      let file = try bench.bytes(name, count: Int(try bench.sizeBytes(name)))
      func number(_ offset: Int) -> Int {
        (0..<4).reduce(0) { $0 | Int(file[offset + $1]) << (8 * $1) }
      }
      let clusterBytes = number(28) * 512
      let unit = file[15] == UInt8(ascii: "t") ? clusterBytes : 512
      for cluster in 0..<(number(36) * 512 + clusterBytes - 1) / clusterBytes {
        let entry = number(64 + 4 * cluster)
        guard entry != 0 else { continue }
        let count = min(clusterBytes, size - cluster * clusterBytes)
        disk.replaceSubrange(
          cluster * clusterBytes..<cluster * clusterBytes + count,
          with: file[entry * unit..<entry * unit + count])
      }
    }
    return disk
  }

  private func askQEMU(_ content: [UInt8]) throws {
    guard hasQEMU else { return }
    let stack = QEMU.stack(names.map(bench.path), rawBase: false)
    try Tool.shell("qemu-img convert -U -O raw '\(stack)' '\(bench.path("raw"))'")
    let raw = try bench.bytes("raw", count: content.count)
    try bench.folder.unlink("raw")
    try require(raw == content, "QEMU reads something else")
    for name in names {
      let status = try Tool.shell(
        "qemu-img check -U -f parallels '\(bench.path(name))'", check: false
      ).status
      // An empty image with a long index has a leak, QEMU says.
      try require(status == 0 || status == 3, "QEMU finds it corrupt: \(status)")
    }
  }

  private func repair(_ found: ChainCheck, _ content: [UInt8]?) throws {
    _ = try ImageRepair.run(sources(writable: true), whereNeeded: found)
    let after = try ChainCheck(sources())
    try require(after.verdict == .clean, "it is repaired, and \(after.verdict)")
    let now = try attachReadOnly(after)
    try require(now == content, "safe repair has changed what it reads as")
    try askQEMU(now ?? [])
  }

  private func repairByForce(_ found: ChainCheck) throws {
    let before = try all()
    guard let plan = found.repairPlan else {
      try require(
        found.mismatch != nil
          || found.levels.contains { if case .unusable = $0 { true } else { false } },
        "it is corrupt, and has no plan")
      return
    }
    let kept = try readable()
    let done = try ForcedRepair.run(sources(writable: true), plan: plan.digest)
    try require(!done.isEmpty, "nothing was done")
    let after = try ChainCheck(sources())
    let expected: ImageCheck.Verdict = found.mismatch == nil ? .repairable : .corrupt
    try require(after.verdict <= expected, "it is repaired by force, and \(after.verdict)")
    let now = try readable()
    for (place, bytes) in kept {
      try require(now[place] == bytes, "forced repair has changed \(place)")
    }
    try require(
      bench.folder.names().contains { $0.contains(".index-backup-") }
        && before.count == names.count,
      "the old index is not kept")
  }

  /// Of each entry that can be followed, what it leads to.
  private func readable() throws -> [String: [UInt8]] {
    var found: [String: [UInt8]] = [:]
    for name in names {
      let file = try bench.folder.open(name, writable: false)
      let size = try file.size()
      let geometry = try bench.header(name).geometry(fileBytes: size)
      var scan = IndexScan(geometry, fileBytes: size)
      var places: [UInt64: UInt64] = [:]
      try scan.run(file) {
        places[$0] = $1
      } fault: { _ in
      }
      for (cluster, place) in places {
        found["\(name) \(cluster)"] = try bench.bytes(
          name, at: place << UInt64(geometry.clusterShift), count: Int(geometry.clusterBytes))
      }
    }
    return found
  }
}
