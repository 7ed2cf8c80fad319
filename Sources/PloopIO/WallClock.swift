internal import Glibc

/// Seconds since 1970, as the host's clock has it: for people, never for measuring.
package func wallClockSeconds() -> Double {
  var now = timespec()
  clock_gettime(CLOCK_REALTIME, &now)
  return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
}
