internal import Glibc

/// Processor time of whole processes, threads that have ended included.
package enum ProcessorTime {
  /// Nanoseconds so far, from the process's own clock (man 3 clock_getcpuclockid): exact, where
  /// `/proc/PID/stat` counts ticks of 10 ms.
  ///
  /// - Returns: nil when there is no such process.
  package static func nanoseconds(of process: Int32) -> UInt64? {
    var clock = clockid_t()
    var time = timespec()
    guard clock_getcpuclockid(process, &clock) == 0, clock_gettime(clock, &time) == 0 else {
      return nil
    }
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  package static var own: UInt64 { nanoseconds(of: getpid()) ?? 0 }
}
