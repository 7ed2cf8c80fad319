import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("Checkpoints of a disk that is made larger")
struct CheckpointGrowthTests {
  private static let old = Geometry(version: .v2, clusterShift: 16, sizeBytes: 4 << 20)
  private static let new = Geometry(version: .v2, clusterShift: 16, sizeBytes: 6 << 20)
  private let fixture: DiskFixture

  init() throws {
    fixture = try DiskFixture()
    try fixture.make("top", Self.old)
  }

  /// A disk with a checkpoint in the middle of a growth, which is killed then.
  private func killed(isHeaderWritten: Bool) throws -> Device {
    let source = try fixture.source("top", writable: true)
    var options = AttachOptions.ofTests
    options.descriptorLocks = []
    let device = try Device.attach([source], options)
    _ = try device.makeCheckpoint(
      NewCheckpoint("one", granularityShift: 16, createdAt: 1), until: .after(seconds: 600))
    try device.put([1], at: 0)
    try device.checkpointing.withLock { _ in
      _ = try device.whileClosed(until: .after(seconds: 600)) { () throws(DeviceError) in
        try device.growCheckpoints(to: Self.new.sizeBytes)
      }
    }
    try device.put([1], at: 1 << 20)
    try device.flush()
    if isHeaderWritten {
      var header = Header(new: Self.new)
      header.inUse = Header.InUse.open
      header.flags = 0
      try source.file.write(AlignedBuffer(header.encoded).region, at: 0)
    }
    ImageLock.release(source.file)
    options.repairSafely = true
    return try Device.attach([try fixture.source("top", writable: true)], options)
  }

  /// Clusters of 64 KiB that may have been written.
  private func dirty(_ device: Device) throws -> [Int] {
    let checkpoint = try device.checkpoint("one")
    #expect(checkpoint.inconsistency == nil)
    let bits = Bitmap(bytes: checkpoint.bytes, count: Int(device.geometry.clusterCount))
    return (0..<bits.count).filter { bits[$0] }
  }

  @Test("What lies behind the old end counts as written, and what was written before stays so")
  func grown() throws {
    let device = try killed(isHeaderWritten: true)
    #expect(try dirty(device) == [0, 16] + Array(64..<96))
    try device.put([1], at: 5 << 20)
    try device.close()
  }

  @Test("A growth that a crash has cut short costs nothing")
  func cutShort() throws {
    let device = try killed(isHeaderWritten: false)
    #expect(try dirty(device) == [0, 16])
    try device.close()
  }

  @Test("A bitmap that becomes too large says nothing from then on, and takes no memory")
  func excess() {
    let stored = CheckpointFile.Checkpoint(
      name: "one", createdAt: 1, granularityShift: 12, bits: [1])
    let grown = Checkpoint(stored, diskBytes: 1 << 40).grown(to: 1 << 46, hasRoom: false)
    #expect(grown.inconsistency == CheckpointFile.excess)
    #expect(grown.dirtyBytes == 1 << 46)
    #expect(grown.stored.bits.isEmpty)
  }
}
