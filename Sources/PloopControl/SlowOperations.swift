internal import Logging
internal import PloopDevice
internal import PloopIO

/// A request of a disk that has taken long, as it is told.
package struct SlowOperation: Sendable {
  /// Seconds since 1970, at its end.
  package var at: Double
  package var device: String
  package var operation: String
  package var offset: UInt64
  package var length: UInt64
  package var hasFailed: Bool
  /// Milliseconds from when the disk took it up, and how they were spent.
  package var milliseconds: UInt64
  package var admissionMilliseconds: UInt64
  package var recordingMilliseconds: UInt64
  package var movingMilliseconds: UInt64
  package var flushMilliseconds: UInt64
  /// The rest: reading and writing files, and clusters that others had.
  package var dataMilliseconds: UInt64
}

/// Writes slow requests down: a disk that is slow for all of them must not fill the log.
final class SlowOperations: Sendable {
  /// Of one device, in the log.
  private static let secondsBetweenLines: UInt64 = 1
  private static let mostKept = 100

  private struct Lines {
    /// When the next one may be written, in nanoseconds of the monotonic clock.
    var next: UInt64 = 0
    /// How many were not since the last one.
    var left: UInt64 = 0
  }

  private struct State {
    /// The last ones, oldest first, those that were not logged included.
    var kept: [SlowOperation] = []
    /// Whether a line is on its way: a log may be slower than what it tells of.
    var isWriting = false
    var lines: [String: Lines] = [:]
  }

  private let state = Locked(State())
  private let log: Logger
  private let milliseconds: Int
  private let elsewhere: @Sendable (@escaping @Sendable () -> Void) -> Void

  /// - Parameters:
  ///   - milliseconds: how long a slow request takes; 0 when none is told of.
  ///   - elsewhere: has somebody else do what may wait: requests are noted by who carries them out.
  init(
    from milliseconds: Int, log: Logger,
    elsewhere: @escaping @Sendable (@escaping @Sendable () -> Void) -> Void
  ) {
    self.milliseconds = milliseconds
    self.log = log
    self.elsewhere = elsewhere
  }

  /// Oldest first.
  var last: [SlowOperation] { state.withLock { $0.kept } }

  func watch(_ device: Device, as id: String) {
    guard milliseconds > 0 else { return }
    device.watchSlowRequests(from: UInt64(clamping: milliseconds) &* 1_000_000) { [weak self] in
      self?.note(SlowOperation($0, of: id), now: monotonicNanoseconds())
    }
  }

  /// - Parameter now: nanoseconds of the monotonic clock.
  func note(_ slow: SlowOperation, now: UInt64) {
    let left: UInt64? = state.withLock { state in
      if state.kept.count == SlowOperations.mostKept { state.kept.removeFirst() }
      state.kept.append(slow)
      var lines = state.lines[slow.device] ?? Lines()
      defer { state.lines[slow.device] = lines }
      guard now >= lines.next, !state.isWriting else {
        lines.left += 1
        return nil
      }
      state.isWriting = true
      lines.next = now + SlowOperations.secondsBetweenLines * 1_000_000_000
      defer { lines.left = 0 }
      return lines.left
    }
    guard let left else { return }
    elsewhere { [self] in
      write(slow, left: left)
      state.withLock { $0.isWriting = false }
    }
  }

  private func write(_ slow: SlowOperation, left: UInt64) {
    var metadata: Logger.Metadata = [
      "device": "\(slow.device)", "operation": "\(slow.operation)", "offset": "\(slow.offset)",
      "length": "\(slow.length)", "ms": "\(slow.milliseconds)",
      "admission_ms": "\(slow.admissionMilliseconds)",
      "recording_ms": "\(slow.recordingMilliseconds)", "moving_ms": "\(slow.movingMilliseconds)",
      "flush_ms": "\(slow.flushMilliseconds)", "data_ms": "\(slow.dataMilliseconds)",
    ]
    if slow.hasFailed { metadata["failed"] = "true" }
    if left > 0 { metadata["not_logged_before"] = "\(left)" }
    log.warning("slow operation", metadata: metadata)
  }

  func forget(_ device: String) { state.withLock { _ = $0.lines.removeValue(forKey: device) } }
}

extension SlowOperation {
  fileprivate init(_ request: SlowRequest, of device: String) {
    func milliseconds(_ nanoseconds: UInt64) -> UInt64 { nanoseconds / 1_000_000 }
    let waits = request.waits
    self.init(
      at: wallClockSeconds(), device: device, operation: "\(request.operation)",
      offset: request.offset, length: request.bytes, hasFailed: request.hasFailed,
      milliseconds: milliseconds(request.nanoseconds),
      admissionMilliseconds: milliseconds(waits.admission),
      recordingMilliseconds: milliseconds(waits.recording),
      movingMilliseconds: milliseconds(waits.moving), flushMilliseconds: milliseconds(waits.flush),
      dataMilliseconds: milliseconds(request.nanoseconds - min(request.nanoseconds, waits.sum)))
  }
}
