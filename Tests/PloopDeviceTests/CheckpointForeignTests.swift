import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("Checkpoints of a disk whose files other programs write")
struct CheckpointForeignTests {
  private let bench: ForeignBench

  init() throws { bench = try ForeignBench(seed: 20_261_126) }

  private func make(_ name: String) throws {
    _ = try bench.device.makeCheckpoint(
      NewCheckpoint(name, granularityShift: 12, createdAt: 1), until: .after(seconds: 600))
  }

  /// Whether a change makes a checkpoint inconsistent, for good, and no later one.
  private func expectSpoilt(_ words: String, _ change: () throws -> Void) throws {
    try make("one")
    try change()
    try make("two")
    try bench.write(7)
    func look(_ device: Device) throws {
      #expect(try device.checkpoint("one").inconsistency?.contains(words) == true)
      #expect(try device.checkpoint("one").dirtyBytes == bench.device.geometry.sizeBytes)
      #expect(try device.checkpoint("two").inconsistency == nil)
      #expect(try device.checkpoint("two").dirtyBytes == 4096)
    }
    try look(bench.device)
    try bench.device.close()
    let again = try bench.fixture.attach(bench.names, locks: [])
    try look(again)
    try again.close()
  }

  @Test("A merge that another program made", arguments: [MergeDirection.forward, .backward])
  func merged(direction: MergeDirection) throws {
    try expectSpoilt("another program has merged") {
      try bench.merge(2, direction)
      try bench.notify(2, direction)
    }
  }

  @Test("Clusters that another program moved")
  func moved() throws {
    try expectSpoilt("another program has moved") {
      let cluster = try #require(bench.owned(3).first)
      let place = try #require(bench.places[cluster]?.physical)
      #expect(try bench.update(3, [(cluster, UInt32(place))]) == 1)
    }
  }

  @Test("A refused change spoils nothing")
  func refused() throws {
    try make("one")
    #expect(throws: DeviceError.self) { try bench.notify(2, .forward) }
    #expect(throws: DeviceError.self) { _ = try bench.update(3, [(200, 3)]) }
    #expect(try bench.device.checkpoint("one").inconsistency == nil)
    try bench.device.close()
  }

  @Test("The last one that is removed takes its file along, and costs requests nothing more")
  func last() throws {
    try make("one")
    try make("two")
    for name in ["one", "two"] {
      #expect(bench.fixture.folder.contains("top.checkpoints"))
      #expect(!bench.device.recorders.use { $0.isEmpty })
      try bench.device.removeCheckpoint(name, until: .after(seconds: 600))
    }
    #expect(!bench.fixture.folder.contains("top.checkpoints"))
    #expect(bench.device.recorders.use { $0.isEmpty })
    try bench.write(3)
    try make("three")
    try bench.write(4)
    #expect(try bench.device.checkpoint("three").dirtyBytes == 4096)
    try bench.device.close()
  }
}
