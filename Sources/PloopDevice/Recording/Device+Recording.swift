package import PloopIO

extension Device {
  /// Has a recorder hear of every change from one instant on: nobody is inside the gate at it.
  ///
  /// - Parameters:
  ///   - deadline: by when requests in flight have to end.
  ///   - body: done at that instant; requests wait for it.
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: `.timeout`, and what `body` throws, with nothing recorded.
  package func beginRecording(
    _ recorder: any Recorder, until deadline: Deadline,
    _ body: () throws(DeviceError) -> Void = {}
  ) throws(DeviceError) -> UInt64 {
    try whileClosed(until: deadline) { () throws(DeviceError) in
      try body()
      add(recorder)
    }
  }

  /// Has a recorder hear of every change from now on. Nobody is inside the gate.
  func add(_ recorder: any Recorder) {
    recorders.replace(with: RecorderList(recorders.current.recorders + [recorder]))
  }

  /// Has a recorder hear of nothing any more, from one instant on.
  ///
  /// - Throws: `.timeout`, and it hears of changes as before.
  package func endRecording(
    _ recorder: any Recorder, until deadline: Deadline
  ) throws(DeviceError) -> UInt64 {
    try whileClosed(until: deadline) { () throws(DeviceError) in
      recorders.replace(with: RecorderList(recorders.current.recorders.filter { $0 !== recorder }))
    }
  }

  // MARK: For requests

  /// Enters the gate for a change of the range, once no recorder is in the way.
  ///
  /// Whoever waits for a recorder is outside: a change of the chain does not wait for it, and what it
  /// waits for may need the gate itself.
  func admitted(
    toChange range: Range<UInt64>, _ waits: inout RequestWaits
  ) throws(DeviceError) -> Gate.Pass {
    while true {
      let pass = try admitted(&waits)
      guard !recorders.use({ $0.isEmpty }),
        let obstacle = recorders.current.obstacle(to: range)
      else { return pass }
      gate.leave(pass)
      let before = waits.recording
      defer {
        counters.countRecordingWait(
          nanoseconds: waits.recording - before, isForBackup: obstacle is PushBackup)
      }
      try waits.timing(\.recording) { () throws(DeviceError) in
        try obstacle.willOverwrite(range)
      }
    }
  }

  /// Marks what a request has changed, or has tried to. It is inside the gate.
  func recordChange(_ range: Range<UInt64>) {
    guard !recorders.use({ $0.isEmpty }) else { return }
    recorders.current.mark(range)
  }
}
