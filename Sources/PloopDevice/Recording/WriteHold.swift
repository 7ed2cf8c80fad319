package import PloopIO

/// Keeps all changes of a disk waiting for a short time, which it bounds itself: what was written last is copied
/// meanwhile, to where the disk is to be used from then on. Reads and flushes go on.
///
/// Changes wait outside the gate (``Recorder``), so the disk can be suspended beneath them. Whoever has copied
/// all of it in time keeps them for good (``keep()``); else they go on, late by no more than that time, whatever
/// the other side does.
package final class WriteHold: Recorder {
  private enum Phase {
    case holding
    /// Nobody waits, or ever will.
    case over
    /// They wait for what becomes of the disk.
    case kept
    /// It is suspended: they wait until it is resumed, or closed.
    case suspended
  }

  /// How often those who are kept look whether the disk is resumed.
  private static let lookMilliseconds = 100

  private let device: Device
  private let engine: IOEngine
  /// On the monotonic clock, in nanoseconds.
  private let end: UInt64
  private let phase = Monitor(Phase.holding)
  /// The same: when the first change may have had to wait.
  package let begunAt: UInt64

  /// Holds changes from now on.
  ///
  /// - Parameter limitNanoseconds: for how long they wait at most, unless they are kept.
  /// - Throws: `.timeout` where requests in flight have not ended in that time; nothing is held then.
  package init(
    of device: Device, limitNanoseconds: UInt64, engine: IOEngine
  ) throws(DeviceError) {
    self.device = device
    self.engine = engine
    begunAt = monotonicNanoseconds()
    end = begunAt + limitNanoseconds
    let limit = Int(clamping: limitNanoseconds / 1000)
    _ = try device.beginRecording(self, until: .after(microseconds: limit))
  }

  /// What has been copied counts: changes wait, for whoever suspends the disk.
  ///
  /// - Returns: false when it is too late: some may have been made by now.
  package func keep() -> Bool {
    phase.update { phase in
      guard case .holding = phase, monotonicNanoseconds() < end else {
        phase = .over
        return false
      }
      phase = .kept
      return true
    }
  }

  /// The disk is suspended: changes wait until it is resumed, or closed.
  package func leaveToSuspension() { phase.update { $0 = .suspended } }

  /// Everybody goes on.
  package func release(until deadline: Deadline) throws(DeviceError) {
    phase.update { $0 = .over }
    _ = try device.endRecording(self, until: deadline)
  }

  // MARK: For requests

  package func mayOverwrite(_ range: Range<UInt64>) -> Bool { mayGoOn }

  package func willOverwrite(_ range: Range<UInt64>) throws(DeviceError) {
    engine.aside {
      while !mayGoOn {
        let seen = phase.withLock { $0 }
        _ = phase.wait(until: .after(milliseconds: patience(in: seen))) { $0 == seen ? nil : true }
        expire()
      }
    }
  }

  /// Milliseconds until it has to be looked again; rounded up, since whoever comes back too early waits once more.
  private func patience(in phase: Phase) -> Int {
    guard phase == .holding else { return WriteHold.lookMilliseconds }
    return Int(clamping: (end - min(end, monotonicNanoseconds())) / 1_000_000) + 1
  }

  private var mayGoOn: Bool {
    switch phase.withLock({ $0 }) {
    case .holding, .kept: false
    case .over: true
    case .suspended: !device.isSuspended || device.gate.isShut
    }
  }

  private func expire() {
    phase.update { phase in
      if phase == .holding, monotonicNanoseconds() >= end { phase = .over }
    }
  }

  package func mark(_ range: Range<UInt64>) {}
}
