import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Safe repair")
struct RepairTests {
  private let clusterBytes: UInt64 = 1 << 16

  @Test("saves the index, zeroes the slots behind the disk, cuts the tail, drops the extension")
  func everything() throws {
    let bench = try Bench()
    try bench.makeImage("image", Refusal.sample(), entries: [0: 1, 5: 3, 9: 2])
    try bench.setEntry("image", slot: 10, to: 2)
    try bench.setEntry("image", slot: 16367, to: 0xDEAD)
    try bench.truncate("image", to: 7 * clusterBytes + 100)
    try bench.changeHeader("image") {
      $0.inUse = Header.InUse.open
      $0.extensionSector = 4 * 128
      $0.flags = Header.Flags.empty
    }
    let index = try bench.bytes("image", count: 1 << 16)
    try Tool.shell("cp '\(bench.path("image"))' '\(bench.path("copy"))'")

    let device = try bench.attach(["image"], repair: true)
    #expect(device.repairs.count == 5)
    #expect(
      device.repairs.contains { $0.hasSuffix("dropped the format extension (dirty bitmaps)") })
    #expect(
      try bench.bytes("image.index-backup", count: 1 << 17) == index
        + [UInt8](repeating: 0, count: 1 << 16))
    #expect(try bench.sizeBytes("image.index-backup") == 1 << 16)
    #expect(!bench.folder.contains("image.index-backup.tmp"))
    #expect(try bench.sizeBytes("image") == 4 * clusterBytes)
    let header = try bench.header("image")
    #expect(header.inUse == Header.InUse.open)
    #expect(header.extensionSector == 0 && header.flags == 0)
    var expected = index
    expected.replaceSubrange(0..<64, with: header.encoded)
    expected.replaceSubrange(64 + 40..<(1 << 16), with: repeatElement(0, count: (1 << 16) - 104))
    #expect(try bench.bytes("image", count: 1 << 16) == expected)
    try device.copy(to: bench, "after.raw")
    try device.close()
    try expectClean(bench, "image")

    // What QEMU read in the damaged image, mark cleared, is what the disk holds.
    try bench.changeHeader("copy") {
      $0.inUse = 0
      $0.extensionSector = 0
    }
    try QEMU.convertToRaw(bench.path("copy"), bench.path("before.raw"))
    try expectSameBytes(bench.path("before.raw"), bench.path("after.raw"))
  }

  @Test("of slots behind the disk is done to a closed image when asked for", arguments: [1, 2])
  func tailSlots(version: Int) throws {
    let bench = try Bench()
    let version = try #require(ImageVersion(rawValue: version))
    try bench.makeImage("image", Refusal.sample(version), entries: [0: 1, 5: 3, 9: 2])
    try bench.setEntry("image", slot: 4000, to: 3)
    let device = try bench.attach(["image"], repair: true)
    #expect(device.repairs.count == 2)
    try device.close()
    try expectClean(bench, "image")
    #expect(try bench.bytes("image", at: 64 + 40, count: 1000 * 4 * 4).allSatisfy { $0 == 0 })
    #expect(try bench.bytes("image.index-backup", at: 64 + 4000 * 4, count: 4) == [3, 0, 0, 0])
    try bench.attach(["image"]).close()
  }

  @Test("mends lower deltas in their own files, and clears their marks durably")
  func lowerDeltas() throws {
    let bench = try Bench()
    for name in ["base", "middle", "top"] {
      try bench.makeImage(name, Refusal.sample(), entries: [0: 1, 5: 3, 9: 2])
      try bench.truncate(name, to: 6 * clusterBytes)
    }
    for name in ["base", "top"] {
      try bench.changeHeader(name) { $0.inUse = Header.InUse.open }
    }
    let middle = try Tool.shell("sha256sum '\(bench.path("middle"))'").output
    let device = try bench.attach(["base", "middle", "top"], repair: true)
    #expect(try bench.header("base").inUse == Header.InUse.closed)
    #expect(try bench.header("top").inUse == Header.InUse.open)
    #expect(try bench.sizeBytes("base") == 4 * clusterBytes)
    #expect(bench.folder.contains("base.index-backup") && bench.folder.contains("top.index-backup"))
    // Closed properly, so left alone, spare tail and all.
    #expect(!bench.folder.contains("middle.index-backup"))
    #expect(try Tool.shell("sha256sum '\(bench.path("middle"))'").output == middle)
    try device.close()
    try expectClean(bench, "base")
    try expectClean(bench, "top")
  }

  @Test(
    "that is asked of a read-only attach reads an image that was not closed, and writes nothing")
  func readonly() throws {
    let bench = try Bench()
    try bench.makeImage("image", Refusal.sample(), entries: [0: 1, 5: 3, 9: 2])
    try bench.setEntry("image", slot: 10, to: 2)
    try bench.truncate("image", to: 7 * clusterBytes + 100)
    try bench.changeHeader("image") {
      $0.inUse = Header.InUse.open
      $0.extensionSector = 99
    }
    let before = try bench.fingerprint()
    let device = try bench.attach(["image"], readonly: true, repair: true)
    #expect(try device.bytes(5 * clusterBytes, 2) == [0xA3, 0xA3])
    #expect(device.repairs.isEmpty)
    try device.close()
    #expect(try bench.fingerprint() == before)
  }

  @Test("brings back what a killed QEMU has left", arguments: [4, 64, 1024])
  func killedQEMU(clusterKiB: Int) throws {
    let bench = try Bench()
    try QEMU.create(bench.path("image"), "size=16M,cluster_size=\(clusterKiB)K")
    let killed = try Tool.shell(
      """
      qemu-io -f parallels -c 'write -P 7 100K 3M' -c 'write -P 9 9M 4K' -c flush \
      -c 'sigraise 9' '\(bench.path("image"))'
      """, check: false)
    #expect(killed.status == 137)
    // QEMU reserves 128 MiB while it has an image open.
    #expect(try bench.sizeBytes("image") > 128 << 20)
    #expect(try refusal { try bench.attach(["image"]) }?.0.code == .unclean)
    let device = try bench.attach(["image"], repair: true)
    #expect(try device.bytes(100 << 10, 3 << 20).allSatisfy { $0 == 7 })
    #expect(try device.bytes(9 << 20, 4096).allSatisfy { $0 == 9 })
    #expect(try bench.sizeBytes("image") < 8 << 20)
    try device.close()
    try QEMU.expectSound(bench.path("image"))
    if clusterKiB >= 32 { try OpenVZ.expectSound(bench.path("image")) }
  }

  @Test("leaves a disk whose file was never closed by us as whole as QEMU's own repair does")
  func ourOwnKill() throws {
    let bench = try Bench()
    try ImageCreator.create(in: bench.folder, name: "image", geometry: Refusal.sample())
    do {
      let device = try bench.attach(["image"])
      for cluster: UInt64 in [7, 2, 4] {
        try device.put([UInt8](repeating: 0x77, count: 1 << 16), at: cluster << 16)
      }
      try device.flush()
      // Never detached: the mark stays, and the file is longer than it needs to be.
    }
    try Tool.shell(
      """
      cd '\(bench.folder.path)' && cp image copy && qemu-img check -q -f parallels -r all copy
      """, check: false)
    try bench.attach(["image"], repair: true).close()
    try expectClean(bench, "image")
    try QEMU.expectSound(bench.path("copy"))
    try QEMU.convertToRaw(bench.path("image"), bench.path("ours.raw"))
    try QEMU.convertToRaw(bench.path("copy"), bench.path("theirs.raw"))
    try expectSameBytes(bench.path("ours.raw"), bench.path("theirs.raw"))
  }

  @Test(
    "brings back an image that had the flag of a conversion which had ended", arguments: [1, 2])
  func convertedOnce(levels: Int) throws {
    let bench = try Bench()
    let names = Array(["image", "top"].prefix(levels))
    for name in names {
      try bench.makeImage(name, Refusal.sample(), entries: [0: 1, 5: 3, 9: 2])
      try bench.changeHeader(name) { $0.flags = Header.Flags.converting }
    }
    do {
      let device = try bench.attach(names)
      try device.put([0x77], at: 0, durable: true)
      // Never detached: the mark stays.
    }
    let device = try bench.attach(names, repair: true)
    #expect(try device.bytes(0, 1) == [0x77])
    try device.close()
    try expectClean(bench, names[levels - 1])
  }

  @Test("is not needed for an extension of a closed image: it is dropped before the first write")
  func extensionOfClosedImage() throws {
    let bench = try Bench()
    try bench.makeImage("image", Refusal.sample(), entries: [0: 1, 5: 3, 9: 2])
    try bench.changeHeader("image") {
      $0.inUse = Header.InUse.closedWithExtension
      $0.extensionSector = 4 * 128
    }
    try bench.truncate("image", to: 5 * clusterBytes)
    let before = try bench.fingerprint()
    try bench.attach(["image"], readonly: true).close()
    #expect(try bench.fingerprint() == before)
    let device = try bench.attach(["image"])
    #expect(try bench.header("image").extensionSector == 0)
    #expect(device.repairs.count == 1)
    try device.close()
    try expectClean(bench, "image")
  }

  @Test("takes a file of any length: memory goes by what is referenced", arguments: [false, true])
  func endlessFile(unclean: Bool) throws {
    // Only a file system in memory has files of this length.
    let bench = try Bench(beneath: "/dev/shm")
    let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 40 << 12)
    try bench.makeImage("image", geometry, entries: [0: 1, 5: 3, 9: 2])
    try bench.truncate("image", to: .init(Int64.max))
    if unclean { try bench.changeHeader("image") { $0.inUse = Header.InUse.open } }
    let reader = try bench.attach(["image"], readonly: true, repair: unclean)
    #expect(try reader.bytes(5 << 12, 1) == [0xA3])
    try reader.close()
    let device = try bench.attach(["image"], repair: unclean)
    #expect(try device.bytes(5 << 12, 1) == [0xA3])
    try device.put([1], at: 20 << 12)
    try device.close()
    #expect(try bench.sizeBytes("image") == 5 << 12)
    try QEMU.expectSound(bench.path("image"))
  }

  private func expectClean(_ bench: Bench, _ name: String) throws {
    #expect(try bench.header(name).inUse == Header.InUse.closed)
    #expect(try bench.sizeBytes(name) == 4 * clusterBytes)
    try QEMU.expectSound(bench.path(name))
    try OpenVZ.expectSound(bench.path(name))
  }
}
