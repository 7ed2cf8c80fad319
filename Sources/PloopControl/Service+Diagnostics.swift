/// What helps to find out why a service does what it does, besides what it tells of its disks and jobs.
package struct ServiceDiagnostics: Sendable {
  package var process: ProcessFacts
  package var threads: [ProcessFacts.Threads]
  /// Oldest first.
  package var slowOperations: [SlowOperation]
}

extension Service {
  package func diagnostics() async -> ServiceDiagnostics {
    ServiceDiagnostics(
      process: .now(), threads: ProcessFacts.threads(), slowOperations: slowOperations.last)
  }
}
