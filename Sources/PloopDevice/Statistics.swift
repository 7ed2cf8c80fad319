internal import PloopIO
internal import Synchronization

/// Counters of one disk since it was attached; they never go back.
package final class Statistics: Sendable {
  /// Upper edges of the latency buckets; one more bucket counts what is beyond.
  package static let boundariesMicroseconds: [UInt64] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 100_000, 1_000_000,
  ]

  package enum Operation: Int, CaseIterable, Sendable {
    case read, write, flush, trim, zero, cache
  }

  package struct OperationValues: Sendable {
    package var ops: UInt64
    package var bytes: UInt64
    package var errors: UInt64
    package var latencyNanoseconds: UInt64
    package var histogram: [UInt64]
  }

  package struct Values: Sendable {
    package var operations: [Operation: OperationValues]
    package var copyOnWriteClusters: UInt64
    package var allocatedClusters: UInt64
    /// Changes of the chain, and how long requests had to wait for them.
    package var pauses: UInt64
    package var pauseNanoseconds: UInt64
    package var longestPauseNanoseconds: UInt64
    /// Changes that waited for a recorder, and how long.
    package var recordingWaits: UInt64
    package var recordingWaitNanoseconds: UInt64
    /// How long changes waited for the copy of a push backup: a part of the former.
    package var backupWaitNanoseconds: UInt64
    package var inFlight: UInt64
    package var nanosecondsSinceLastRequest: UInt64
  }

  /// All counters of all operations in one piece of memory: counting touches no object.
  private let table: AtomicCounters
  private enum Column { static let ops = 0, bytes = 1, errors = 2, latency = 3, buckets = 4 }
  private static let columns = Column.buckets + boundariesMicroseconds.count + 1

  private let copied = Atomic<UInt64>(0)
  private let pauses = AtomicCounters(count: 2)
  private let recordingWaits = AtomicCounters(count: 3)
  private let longestPause = Atomic<UInt64>(0)
  private let allocated = Atomic<UInt64>(0)
  private let lastRequest = Atomic<UInt64>(monotonicNanoseconds())
  let slow = SlowRequests()

  init() { table = AtomicCounters(count: Operation.allCases.count * Statistics.columns) }

  func countCopy() { copied.wrappingAdd(1, ordering: .relaxed) }
  func countAllocation() { allocated.wrappingAdd(1, ordering: .relaxed) }

  /// Counts a change of the chain for which requests had to wait.
  func countPause(nanoseconds: UInt64) {
    pauses.add(1, at: 0)
    pauses.add(nanoseconds, at: 1)
    longestPause.max(nanoseconds, ordering: .relaxed)
  }

  /// Counts a change that had to wait for a recorder.
  func countRecordingWait(nanoseconds: UInt64, isForBackup: Bool) {
    recordingWaits.add(1, at: 0)
    recordingWaits.add(nanoseconds, at: 1)
    if isForBackup { recordingWaits.add(nanoseconds, at: 2) }
  }

  /// Counts a request that began at `start` and has just ended.
  ///
  /// - Parameters:
  ///   - bytes: how many it was about; none of them count if it failed.
  ///   - waits: where its time has gone, as far as that is known.
  func count(
    _ operation: Operation, at offset: UInt64, bytes: UInt64, since start: UInt64,
    failed: Bool = false, waits: RequestWaits = RequestWaits()
  ) {
    let now = monotonicNanoseconds()
    let row = operation.rawValue * Statistics.columns
    table.add(1, at: row + Column.ops)
    if failed {
      table.add(1, at: row + Column.errors)
    } else {
      table.add(bytes, at: row + Column.bytes)
    }
    let nanoseconds = now &- start
    table.add(nanoseconds, at: row + Column.latency)
    table.add(1, at: row + Column.buckets + Statistics.bucket(of: nanoseconds))
    lastRequest.store(now, ordering: .relaxed)
    if nanoseconds >= slow.nanoseconds {
      slow.note(
        SlowRequest(
          operation: operation, offset: offset, bytes: bytes, nanoseconds: nanoseconds,
          waits: waits, hasFailed: failed))
    }
  }

  /// Without the array, which would be counted in and out for every request.
  static func bucket(of nanoseconds: UInt64) -> Int {
    switch nanoseconds {
    case ...50_000: 0
    case ...100_000: 1
    case ...200_000: 2
    case ...400_000: 3
    case ...800_000: 4
    case ...1_600_000: 5
    case ...3_200_000: 6
    case ...6_400_000: 7
    case ...12_800_000: 8
    case ...100_000_000: 9
    case ...1_000_000_000: 10
    default: 11
    }
  }

  func values(inFlight: UInt64) -> Values {
    var operations: [Operation: OperationValues] = [:]
    for operation in Operation.allCases {
      let row = operation.rawValue * Statistics.columns
      operations[operation] = OperationValues(
        ops: table[row + Column.ops], bytes: table[row + Column.bytes],
        errors: table[row + Column.errors], latencyNanoseconds: table[row + Column.latency],
        histogram: (row + Column.buckets..<row + Statistics.columns).map { table[$0] })
    }
    return Values(
      operations: operations, copyOnWriteClusters: copied.load(ordering: .relaxed),
      allocatedClusters: allocated.load(ordering: .relaxed), pauses: pauses[0],
      pauseNanoseconds: pauses[1],
      longestPauseNanoseconds: longestPause.load(ordering: .relaxed),
      recordingWaits: recordingWaits[0], recordingWaitNanoseconds: recordingWaits[1],
      backupWaitNanoseconds: recordingWaits[2],
      inFlight: inFlight,
      nanosecondsSinceLastRequest: monotonicNanoseconds()
        &- lastRequest.load(ordering: .relaxed))
  }
}
