internal import Glibc
internal import PloopIO

/// What a load has measured.
package struct LoadResult: Codable, Sendable {
  package var kind: LoadJob.Kind
  package var operations: UInt64
  package var seconds: Double
  package var operationsPerSecond: Double
  package var mebibytesPerSecond: Double
  /// Microseconds.
  package var p50: Double
  package var p99: Double
  package var p999: Double
  /// Microseconds of processor time for each operation; the server's where its number was given.
  package var clientMicroseconds: Double
  package var serverMicroseconds: Double?
  /// Different units that were written, and units that were read by stamp (``Content``).
  package var writtenUnits: Int
  package var readUnits: [String: UInt64]
}

/// Several jobs at once, each with connections and threads of its own.
package enum Load {
  /// - Parameters:
  ///   - server: the process whose processor time is wanted.
  /// - Throws: `BenchFailure` when a server breaks the protocol, answers with an error, or returns
  ///   what nobody wrote.
  package static func run(
    _ jobs: [(address: NBDAddress, job: LoadJob)], server: Int32? = nil
  ) throws(BenchFailure) -> [LoadResult] {
    let groups = jobs.map { _ in Locked<[LoadConnection.Outcome]>([]) }
    let gate = Monitor<UInt64?>(nil)
    var threads: [Thread] = []
    defer { threads.forEach { $0.join() } }
    // On an error before the start, whoever waits is let go with a start long ago.
    defer { gate.update { $0 = $0 ?? 0 } }
    for (group, (address, job)) in zip(groups, jobs) {
      try job.validate()
      for index in 0..<job.connections {
        let client = try NBDClient(address, structuredReplies: job.structuredReplies)
        guard job.offset + job.spanBytes <= client.sizeBytes else {
          throw BenchFailure("the disk ends at byte \(client.sizeBytes), before the job's span")
        }
        threads.append(try start(client, job, index, group, gate))
      }
    }
    let begin = monotonicNanoseconds()
    let clientBefore = ProcessorTime.own
    let serverBefore = server.flatMap { ProcessorTime.nanoseconds(of: $0) }
    gate.update { $0 = begin }
    threads.forEach { $0.join() }
    threads = []
    let clientTime = ProcessorTime.own - clientBefore
    let serverTime = server.flatMap { ProcessorTime.nanoseconds(of: $0) }.flatMap { after in
      serverBefore.map { after - $0 }
    }
    var results: [LoadResult] = []
    for (group, (_, job)) in zip(groups, jobs) {
      let outcomes = group.withLock { $0 }
      if let failure = outcomes.compactMap(\.failure).first { throw failure }
      results.append(summary(job, outcomes, begin, clientTime, serverTime))
    }
    return results
  }

  private static func start(
    _ client: NBDClient, _ job: LoadJob, _ index: Int,
    _ group: Locked<[LoadConnection.Outcome]>, _ gate: Monitor<UInt64?>
  ) throws(BenchFailure) -> Thread {
    do {
      return try Thread(name: "load") {
        // On Linux that is of this thread alone.
        if job.givesWay { setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 19) }
        guard let begin = gate.wait({ $0 }) else { return }
        var connection = LoadConnection(client, job, index: index)
        var end = UInt64.max
        if case .seconds(let seconds) = job.limit { end = begin + UInt64(seconds * 1e9) }
        let outcome =
          job.kind == .stall ? connection.stall(until: end) : connection.run(until: end)
        group.withLock { $0.append(outcome) }
      }
    } catch { throw BenchFailure(error.description) }
  }

  private static func summary(
    _ job: LoadJob, _ outcomes: [LoadConnection.Outcome], _ begin: UInt64, _ clientTime: UInt64,
    _ serverTime: UInt64?
  ) -> LoadResult {
    var all = LoadConnection.Outcome()
    for outcome in outcomes {
      all.operations += outcome.operations
      all.bytes += outcome.bytes
      all.latencies.add(outcome.latencies)
      all.units.merge(outcome.units)
      all.end = max(all.end, outcome.end)
    }
    let seconds = max(1e-9, Double(all.end &- begin) / 1e9)
    let each = max(1, Double(all.operations))
    return LoadResult(
      kind: job.kind, operations: all.operations, seconds: seconds,
      operationsPerSecond: Double(all.operations) / seconds,
      mebibytesPerSecond: Double(all.bytes) / seconds / Double(1 << 20),
      p50: Double(all.latencies.quantile(0.5)) / 1e3,
      p99: Double(all.latencies.quantile(0.99)) / 1e3,
      p999: Double(all.latencies.quantile(0.999)) / 1e3,
      clientMicroseconds: Double(clientTime) / 1e3 / each,
      serverMicroseconds: serverTime.map { Double($0) / 1e3 / each },
      writtenUnits: all.units.writtenUnits, readUnits: all.units.readUnits)
  }
}
