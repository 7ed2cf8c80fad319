internal import Glibc
internal import PloopIO

/// What the kernel knows of this process, under the names that collectors expect.
enum ProcessMetrics {
  static func now() -> [Metric] {
    let status = lines(of: "/proc/self/status")
    var metrics = [
      Metric(
        .counter, "process_cpu_seconds_total", "Processor time, in user space and in the kernel.",
        processorSeconds())
    ]
    if let kibibytes = status["VmRSS"] {
      metrics.append(
        Metric(
          .gauge, "process_resident_memory_bytes", "Memory that is in use.", kibibytes * 1024))
    }
    if let threads = status["Threads"] {
      metrics.append(Metric(.gauge, "process_threads", "Threads of the process.", threads))
    }
    if let folder = try? ImageFolder(path: "/proc/self/fd"), let names = try? folder.names() {
      metrics.append(
        Metric(.gauge, "process_open_fds", "Files and sockets that are open.", Double(names.count)))
    }
    var limit = rlimit()
    if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
      metrics.append(
        Metric(
          .gauge, "process_max_fds", "Files and sockets that may be open.",
          Double(limit.rlim_cur)))
    }
    return metrics
  }

  private static func processorSeconds() -> Double {
    var usage = rusage()
    guard getrusage(RUSAGE_SELF.rawValue, &usage) == 0 else { return 0 }
    return [usage.ru_utime, usage.ru_stime].reduce(0) {
      $0 + Double($1.tv_sec) + Double($1.tv_usec) / 1e6
    }
  }

  /// The numbers of a file with a name and a number on each line.
  private static func lines(of path: String) -> [String: Double] {
    guard let file = fopen(path, "r") else { return [:] }
    defer { fclose(file) }
    var found: [String: Double] = [:]
    var buffer = [CChar](repeating: 0, count: 512)
    while fgets(&buffer, Int32(buffer.count), file) != nil {
      let line = String(
        decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
      let words = line.split { $0 == ":" || $0 == "\t" || $0 == " " || $0 == "\n" }
      if words.count >= 2, let number = Double(words[1]) { found[String(words[0])] = number }
    }
    return found
  }
}
