internal import Glibc

/// What this process may use of the host.
package enum ProcessLimits {
  /// Raises the number of open files to what the host allows at most; a host that refuses even that
  /// is believed. Every delta and every client needs one.
  ///
  /// - Returns: how many may be open now.
  @discardableResult
  package static func raiseOpenFiles() -> UInt64 {
    var limit = rlimit()
    let files = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    guard getrlimit(files, &limit) == 0 else { return 0 }
    let allowed = limit.rlim_cur
    guard allowed < limit.rlim_max else { return UInt64(allowed) }
    limit.rlim_cur = limit.rlim_max
    return UInt64(setrlimit(files, &limit) == 0 ? limit.rlim_max : allowed)
  }
}
