import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopDevice

@Suite("Checkpoints whose answer was lost")
struct CheckpointServiceTests {
  private let fixture: ServiceFixture
  private let database: String

  init() throws {
    fixture = try ServiceFixture()
    database = "\(fixture.folder.path)/state/ploopd.db"
  }

  private func key(_ fingerprint: String) -> RequestKey {
    RequestKey("again", route: "POST checkpoints", fingerprint: fingerprint)
  }

  /// What is made while nothing of a device can be written down.
  private func withoutRoom(_ body: (Service) async throws -> Void) async throws -> String? {
    try Tool.shell(
      """
      sqlite3 '\(database)' "CREATE TRIGGER full BEFORE INSERT ON devices
        BEGIN SELECT RAISE(ABORT, 'no room'); END"
      """)
    defer { _ = try? Tool.shell("sqlite3 '\(database)' 'DROP TRIGGER full'") }
    return try await fixture.code(body)
  }

  @Test("the same request finds the checkpoint that it has made, also in the next life")
  func again() async throws {
    try await fixture.create("vm")
    func make(_ fingerprint: String?) async throws -> CheckpointInfo {
      let keeper = fingerprint.map { AnswerKeeper<CheckpointInfo>(key($0)) { $0.name } }
      return try await fixture.service.addCheckpoint(
        "vm", CheckpointRequest(name: "one"), keeping: keeper)
    }
    #expect(try await withoutRoom { _ in _ = try await make("a") } == "io-error")
    let device = try fixture.service.controller("vm").device()
    let bytes = AlignedBuffer(count: 4096)
    try device.write(bytes.region, at: 0, durable: true)
    #expect(try await fixture.code { _ in _ = try await make("b") } == "checkpoint-exists")
    #expect(try await fixture.code { _ in _ = try await make(nil) } == "checkpoint-exists")
    try fixture.stop()
    try await fixture.restart()
    let found = try await make("a")
    // It is the one of then: what was written since is in it.
    #expect(found.dirtyBytes == 1 << 16 && found.pauseNanoseconds == nil)
    #expect(try await fixture.service.checkpoints("vm").items.count == 1)
    try fixture.stop()
  }

  @Test("a push backup that was not written down leaves its checkpoint to the same request alone")
  func ofABackup() async throws {
    try await fixture.create("vm")
    let device = try fixture.service.controller("vm").device()
    _ = try device.makeCheckpoint(
      NewCheckpoint("two", granularityShift: 16, createdAt: 1, request: key("a").words),
      until: .after(seconds: 600))
    func start(_ fingerprint: String) async throws {
      var request = PushBackupRequest()
      request.checkpoint = CheckpointRequest(name: "two")
      request.hasExport = false
      _ = try await fixture.service.startPushBackup(
        "vm", request, keeping: AnswerKeeper(key(fingerprint)) { $0.uuid })
    }
    #expect(try await fixture.code { _ in try await start("b") } == "checkpoint-exists")
    try await start("a")
    #expect(try await fixture.service.pushBackup("vm").checkpoint == "two")
    try fixture.stop()
  }
}
