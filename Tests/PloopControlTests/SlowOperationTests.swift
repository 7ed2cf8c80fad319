import Logging
import PloopIO
import Testing

@testable import PloopControl

@Suite("Slow operations")
struct SlowOperationTests {
  private struct Lines: LogHandler {
    let entries = Locked<[Logger.Metadata]>([])
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { entries.withLock { $0.append(event.metadata ?? [:]) } }
  }

  private let lines = Lines()

  private func slow(_ device: String, offset: UInt64 = 0) -> SlowOperation {
    SlowOperation(
      at: 0, device: device, operation: "write", offset: offset, length: 4096, hasFailed: false,
      milliseconds: 1_500, admissionMilliseconds: 0, recordingMilliseconds: 1_200,
      movingMilliseconds: 0, flushMilliseconds: 250, dataMilliseconds: 50)
  }

  @Test("one line a second for each disk, and the others are counted")
  func lineLimit() {
    let operations = SlowOperations(from: 1_000, log: Logger(label: "t") { _ in lines }) { $0() }
    let second: UInt64 = 1_000_000_000
    for number in 0..<5 { operations.note(slow("vm1", offset: UInt64(number)), now: 7) }
    operations.note(slow("vm2"), now: 8)
    operations.note(slow("vm1"), now: 6 + second)
    operations.note(slow("vm1"), now: 7 + second)
    let entries = lines.entries.withLock { $0 }
    #expect(entries.map { $0["device"] } == ["vm1", "vm2", "vm1"])
    #expect(entries.map { $0["not_logged_before"] } == [nil, nil, "5"])
    #expect(entries[0]["recording_ms"] == "1200")
    #expect(entries[0]["ms"] == "1500")
    #expect(operations.last.map(\.offset) == [0, 1, 2, 3, 4, 0, 0, 0])
  }

  @Test("the last hundred are kept")
  func kept() {
    let operations = SlowOperations(from: 1_000, log: Logger(label: "t") { _ in lines }) { $0() }
    for number in 0..<250 { operations.note(slow("vm1", offset: UInt64(number)), now: 0) }
    #expect(operations.last.map(\.offset) == Array(150..<250))
  }

  @Test("a log that takes its time keeps no request, and has one line on its way")
  func slowLog() {
    let waiting = Locked<[@Sendable () -> Void]>([])
    let operations = SlowOperations(from: 1_000, log: Logger(label: "t") { _ in lines }) { work in
      waiting.withLock { $0.append(work) }
    }
    for number in 0..<4 { operations.note(slow("vm\(number % 2)"), now: 0) }
    #expect(lines.entries.withLock { $0.isEmpty } && operations.last.count == 4)
    let first = waiting.withLock { $0 }
    #expect(first.count == 1)
    for work in first { work() }
    operations.note(slow("vm1"), now: 1)
    for work in waiting.withLock({ $0 }).dropFirst() { work() }
    let entries = lines.entries.withLock { $0 }
    #expect(entries.map { $0["device"] } == ["vm0", "vm1"])
    #expect(entries.map { $0["not_logged_before"] } == [nil, "2"])
  }
}
