import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Checkpoints")
struct CheckpointTests {
  /// 64 clusters of 64 KiB, and as many regions.
  static let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 4 << 20)
  static let block: UInt64 = 4096
  let disk: DiskFixture
  let probe: FaultPlan
  private let opened = Locked<[ImageFile]>([])

  init() throws {
    probe = FaultPlan { _, _, _ in nil }
    disk = try DiskFixture(probe: probe)
    try disk.make("top", Self.geometry)
  }

  private func attach(repair: Bool = false, inImage: Bool = false) throws -> Device {
    var options = AttachOptions.ofTests
    options.repairSafely = repair
    options.bitmapsInImage = inImage
    let source = try disk.source("top", writable: true)
    opened.withLock { $0.append(source.file) }
    return try Device.attach([source], options)
  }

  private func detach(_ device: Device) throws { try device.detach(until: .after(seconds: 600)) }

  private func make(_ name: String, on device: Device, shift: Int = 12) throws {
    _ = try device.makeCheckpoint(
      NewCheckpoint(name, granularityShift: shift, createdAt: 1), until: .after(seconds: 600))
  }

  private func write(_ device: Device, _ block: UInt64, count: Int = 1, byte: UInt8 = 7) throws {
    let region = AlignedBuffer(count: count * Int(Self.block)).region
    region.fill(byte)
    try device.write(region, at: block * Self.block, durable: false)
  }

  /// Blocks of 4 KiB that a checkpoint says were written.
  private func dirty(_ name: String, of device: Device) throws -> Set<UInt64> {
    let checkpoint = try device.checkpoint(name)
    #expect(checkpoint.inconsistency == nil)
    var blocks: Set<UInt64> = []
    var offset: UInt64 = 0
    for run in checkpoint.runs(of: 0..<Self.geometry.sizeBytes, limit: .max) {
      if run.isDirty { blocks.formUnion(offset / Self.block..<(offset + run.length) / Self.block) }
      offset += run.length
    }
    #expect(offset == Self.geometry.sizeBytes)
    #expect(checkpoint.dirtyBytes == UInt64(blocks.count) * Self.block)
    return blocks
  }

  /// Leaves the disk as a killed process does.
  private func kill(_ device: Device) throws {
    for file in opened.withLock({ $0 }) { ImageLock.release(file) }
  }

  @Test(
    "Writes, zeroes and trims set the bits of their blocks, in each checkpoint from its instant on")
  func bits() throws {
    let device = try attach()
    try write(device, 3)
    try make("one", on: device)
    #expect(try dirty("one", of: device) == [])
    try write(device, 5, count: 2)
    // Quickly only where the region has its mark: anywhere else a disk has to be waited for.
    let few = AlignedBuffer(count: 100).region
    #expect(!device.writeNow(few, at: 20 * Self.block + 4000))
    try device.write(few, at: 20 * Self.block + 4000, durable: false)
    #expect(device.writeNow(few, at: 20 * Self.block + 4000))
    try make("two", on: device)
    try device.writeZeroes(
      offset: 32 * Self.block, length: 16 * Self.block, keepAllocated: false, onlyIfFast: false,
      durable: false)
    try device.discard(offset: 0, length: Self.geometry.clusterBytes, durable: true)
    let later = Set<UInt64>(32..<48).union(0..<16)
    #expect(try dirty("one", of: device) == later.union([5, 6, 20, 21]))
    #expect(try dirty("two", of: device) == later)
    #expect(try device.checkpoint("two").parent == "one")
    try device.removeCheckpoint("one", until: .after(seconds: 600))
    #expect(device.checkpoints.map(\.name) == ["two"])
    try detach(device)
  }

  @Test(
    "One takes another's name and place, and goes on with its own bits, also after the next attach")
  func renamed() throws {
    var device = try attach()
    try make("kept", on: device)
    try write(device, 1)
    try make("new", on: device)
    try make("later", on: device)
    try write(device, 2)
    try device.renameCheckpoint("new", to: "kept", until: .after(seconds: 600))
    try write(device, 70)
    #expect(device.checkpoints.map(\.name) == ["kept", "later"])
    #expect(try device.checkpoint("kept").parent == nil)
    #expect(try device.checkpoint("later").parent == "kept")
    #expect(try dirty("kept", of: device) == [2, 70])
    #expect(throws: DeviceError.self) {
      try device.renameCheckpoint("new", to: "kept", until: .after(seconds: 600))
    }
    try device.renameCheckpoint("later", to: "other", until: .after(seconds: 600))
    try detach(device)
    device = try attach()
    #expect(device.checkpoints.map(\.name) == ["kept", "other"])
    #expect(try dirty("kept", of: device) == [2, 70])
    #expect(try dirty("other", of: device) == [2, 70])
    try detach(device)
  }

  @Test("A clean detach keeps every bit and no more, attach after attach")
  func kept() throws {
    var device = try attach()
    try make("one", on: device)
    try make("coarse", on: device, shift: 20)
    var written: Set<UInt64> = []
    for round: UInt64 in 1...3 {
      try write(device, round * 200)
      written.insert(round * 200)
      try detach(device)
      device = try attach()
      #expect(try dirty("one", of: device) == written)
    }
    #expect(try device.checkpoint("coarse").dirtyBytes == 3 << 20)
    try detach(device)
  }

  @Test("After a kill all of each region that was written is dirty, and nothing else")
  func killed() throws {
    let device = try attach()
    try make("one", on: device)
    try write(device, 1)
    try write(device, 100)
    try kill(device)
    let again = try attach(repair: true)
    // Regions of 64 KiB: blocks 0 to 15 and 96 to 111.
    #expect(try dirty("one", of: again) == Set(0..<16).union(96..<112))
    try write(again, 1000)
    try kill(again)
    let third = try attach(repair: true)
    #expect(try dirty("one", of: third).count == 48)
    try detach(third)
  }

  @Test(
    "A file that somebody has written, closed or put in place says why its checkpoints say nothing")
  func changedByOthers() throws {
    func reason(_ change: () throws -> Void) throws -> String? {
      let device = try attach()
      for old in device.checkpoints.map(\.name) {
        try device.removeCheckpoint(old, until: .after(seconds: 600))
      }
      try make("one", on: device)
      try write(device, 1)
      try detach(device)
      try change()
      let again = try attach(repair: true)
      defer { try? detach(again) }
      let checkpoint = try again.checkpoint("one")
      #expect(checkpoint.dirtyBytes == (checkpoint.inconsistency == nil ? 4096 : 4 << 20))
      return checkpoint.inconsistency
    }
    #expect(try reason {} == nil)
    // Behind the size and the header only the time of the change tells.
    let changed = "its files are not what they were when they were closed"
    #expect(
      try reason {
        let file = try disk.folder.open("top", writable: true)
        let byte = AlignedBuffer(count: 1).region
        try file.readOrZero(into: byte, at: 70_000)
        try file.write(byte, at: 70_000)
      } == changed)
    #expect(
      try reason {
        let bytes = try disk.folder.bytes(of: "top", limit: 8 << 20)
        try disk.folder.replace("top", with: bytes)
      } == changed)
    // Another process that had it open, and died.
    #expect(
      try reason {
        let file = try disk.folder.open("top", writable: true)
        var header = Header(new: Self.geometry)
        header.inUse = Header.InUse.open
        header.flags = 0
        try file.write(AlignedBuffer(header.encoded).region, at: 0)
      } == changed)
  }

  @Test("An image that somebody else has closed after a kill is not believed")
  func closedByOthers() throws {
    let device = try attach()
    try make("one", on: device)
    try write(device, 1)
    try kill(device)
    let file = try disk.folder.open("top", writable: true)
    var header = Header(new: Self.geometry)
    header.flags = 0
    try file.write(AlignedBuffer(header.encoded).region, at: 0)
    let again = try attach()
    #expect(try again.checkpoint("one").inconsistency?.contains("somebody else") == true)
    try detach(again)
  }

  @Test("What a process did not write after opening the disk costs nothing, even if it is killed")
  func idle() throws {
    let device = try attach()
    try make("one", on: device)
    try write(device, 1)
    try detach(device)
    try kill(try attach())
    let again = try attach(repair: true)
    #expect(try dirty("one", of: again) == [1])
    try detach(again)
  }

  @Test("Where a mark cannot be written the guest goes on, and the checkpoints say so for good")
  func markFails() throws {
    let device = try attach()
    try make("one", on: device)
    try write(device, 1)
    probe.replace { _, operation, path in
      if case .write(let offset, 1) = operation, path.hasSuffix(".checkpoints"),
        (4096..<8192).contains(offset)
      {
        .error(5)
      } else {
        nil
      }
    }
    try write(device, 500)
    try write(device, 900)
    probe.replace { _, _, _ in nil }
    let reason = try #require(try device.checkpoint("one").inconsistency)
    #expect(reason.contains("mark"))
    try make("two", on: device)
    try write(device, 600)
    try kill(device)
    let again = try attach(repair: true)
    #expect(try again.checkpoint("one").inconsistency == reason)
    #expect(try dirty("two", of: again) == Set(592..<608))
    try detach(again)
  }

  @Test("Where nothing about the checkpoints can be made durable a write into a new region fails")
  func nothingWorks() throws {
    let device = try attach()
    try make("one", on: device)
    try write(device, 1)
    probe.replace { _, operation, path in
      if path.contains(".checkpoints") { return .error(5) }
      if case .syncFolder = operation { return .error(5) }
      return nil
    }
    #expect(throws: DeviceError.self) { try write(device, 500) }
    // A region that is marked goes on.
    try write(device, 2)
    probe.replace { _, _, _ in nil }
    try write(device, 500)
    #expect(try dirty("one", of: device).isSuperset(of: [1, 2, 500]))
    try detach(device)
  }

  @Test("A damaged file is dropped with a word, and the disk comes up")
  func damaged() throws {
    let device = try attach()
    try make("one", on: device)
    try detach(device)
    let file = try disk.folder.open("top.checkpoints", writable: true)
    try file.write(AlignedBuffer([0xFF]).region, at: 60)
    let again = try attach()
    #expect(again.checkpoints.isEmpty)
    #expect(again.repairs.contains { $0.contains("checksum of its head") })
    #expect(!disk.folder.contains("top.checkpoints"))
    try detach(again)
  }

  @Test("What cannot be is refused with nothing changed")
  func refused() throws {
    let device = try attach()
    try make("one", on: device)
    #expect(throws: DeviceError.self) { try make("one", on: device) }
    for shift in [11, 27] {
      #expect(throws: DeviceError.self) { try make("x", on: device, shift: shift) }
    }
    #expect(throws: DeviceError.self) {
      try device.removeCheckpoint("x", until: .after(seconds: 600))
    }
    try detach(device)
    let readonly = try disk.attach(["top"], readonly: true)
    #expect(readonly.checkpoints.map(\.name) == ["one"])
    #expect(throws: DeviceError.self) { try make("two", on: readonly) }
    try detach(readonly)
  }

  // MARK: In the image

  static let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f"

  @Test(
    "Bitmaps in the image come back without the file beside it, and are dropped while it is written"
  )
  func inImage() throws {
    var device = try attach(inImage: true)
    try make(Self.uuid, on: device)
    try make("no-uuid", on: device)
    try write(device, 9)
    try detach(device)
    var check = try ImageCheck(try disk.folder.open("top", writable: false))
    #expect(check.verdict == .clean)
    #expect(check.header.inUse == Header.InUse.closedWithExtension)
    try disk.folder.unlink("top.checkpoints")
    device = try attach()
    #expect(device.checkpoints.map(\.name) == [Self.uuid])
    #expect(try dirty(Self.uuid, of: device) == [9])
    check = try ImageCheck(try disk.folder.open("top", writable: false))
    guard case .none = check.formatExtension else {
      Issue.record("the extension is there while the image is written")
      return
    }
    try write(device, 10)
    try detach(device)
    device = try attach()
    #expect(try dirty(Self.uuid, of: device) == [9, 10])
    try detach(device)
  }

  @Test("A damaged or dangling extension is dropped", arguments: [true, false])
  func damagedExtension(isCut: Bool) throws {
    let device = try attach(inImage: true)
    try make(Self.uuid, on: device)
    try write(device, 9)
    try detach(device)
    try disk.folder.unlink("top.checkpoints")
    let file = try disk.folder.open("top", writable: true)
    let size = try file.size()
    if isCut {
      try file.truncate(to: size - Self.geometry.clusterBytes)
    } else {
      try file.write(AlignedBuffer([1]).region, at: size - 1)
    }
    let again = try attach()
    #expect(again.checkpoints.isEmpty)
    try detach(again)
    #expect(try ImageCheck(file).verdict == .clean)
  }
}
