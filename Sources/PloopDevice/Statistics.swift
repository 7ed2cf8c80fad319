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
    package var inFlight: UInt64
    package var nanosecondsSinceLastRequest: UInt64
  }

  private final class Counters: Sendable {
    let ops = Atomic<UInt64>(0)
    let bytes = Atomic<UInt64>(0)
    let errors = Atomic<UInt64>(0)
    let latency = Atomic<UInt64>(0)
    let buckets: [Counter] = (0...Statistics.boundariesMicroseconds.count).map { _ in Counter() }
  }

  private final class Counter: Sendable {
    let value = Atomic<UInt64>(0)
  }

  private let counters: [Counters] = Operation.allCases.map { _ in Counters() }
  private let copied = Atomic<UInt64>(0)
  private let allocated = Atomic<UInt64>(0)
  private let lastRequest = Atomic<UInt64>(monotonicNanoseconds())

  init() {}

  func countCopy() { copied.wrappingAdd(1, ordering: .relaxed) }
  func countAllocation() { allocated.wrappingAdd(1, ordering: .relaxed) }

  /// Counts a request that began at `start` and has just ended.
  func count(_ operation: Operation, bytes: UInt64, since start: UInt64, failed: Bool = false) {
    let now = monotonicNanoseconds()
    let counters = self.counters[operation.rawValue]
    counters.ops.wrappingAdd(1, ordering: .relaxed)
    if failed {
      counters.errors.wrappingAdd(1, ordering: .relaxed)
    } else {
      counters.bytes.wrappingAdd(bytes, ordering: .relaxed)
    }
    let nanoseconds = now &- start
    counters.latency.wrappingAdd(nanoseconds, ordering: .relaxed)
    let bucket =
      Statistics.boundariesMicroseconds.firstIndex { nanoseconds <= $0 * 1000 }
      ?? Statistics.boundariesMicroseconds.count
    counters.buckets[bucket].value.wrappingAdd(1, ordering: .relaxed)
    lastRequest.store(now, ordering: .relaxed)
  }

  func values(inFlight: UInt64) -> Values {
    var operations: [Operation: OperationValues] = [:]
    for operation in Operation.allCases {
      let counters = self.counters[operation.rawValue]
      operations[operation] = OperationValues(
        ops: counters.ops.load(ordering: .relaxed), bytes: counters.bytes.load(ordering: .relaxed),
        errors: counters.errors.load(ordering: .relaxed),
        latencyNanoseconds: counters.latency.load(ordering: .relaxed),
        histogram: counters.buckets.map { $0.value.load(ordering: .relaxed) })
    }
    return Values(
      operations: operations, copyOnWriteClusters: copied.load(ordering: .relaxed),
      allocatedClusters: allocated.load(ordering: .relaxed), inFlight: inFlight,
      nanosecondsSinceLastRequest: monotonicNanoseconds()
        &- lastRequest.load(ordering: .relaxed))
  }
}
