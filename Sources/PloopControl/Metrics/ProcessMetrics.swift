/// What the kernel knows of this process, under the names that collectors expect.
enum ProcessMetrics {
  static func now() -> [Metric] {
    let facts = ProcessFacts.now()
    let gauges: [(String, String, Double?)] = [
      (
        "process_resident_memory_bytes", "Memory that is in use.",
        facts.residentBytes.map { Double($0) }
      ),
      ("process_threads", "Threads of the process.", facts.threadCount.map { Double($0) }),
      ("process_open_fds", "Files and sockets that are open.", facts.openFiles.map { Double($0) }),
      (
        "process_max_fds", "Files and sockets that may be open.", facts.mostFiles.map { Double($0) }
      ),
    ]
    return [
      Metric(
        .counter, "process_cpu_seconds_total", "Processor time, in user space and in the kernel.",
        facts.processorSeconds)
    ] + gauges.compactMap { name, help, value in value.map { Metric(.gauge, name, help, $0) } }
  }
}
