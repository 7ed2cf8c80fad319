internal import PloopDevice
internal import PloopIO

extension ChainRecording {
  /// Makes the top's file smaller, with `between` run after each step.
  ///
  /// - Parameter steps: after so many it is given up.
  func compact(
    _ parts: Set<Compaction.Part>, steps: Int = .max, between: () throws -> Void = {}
  ) throws {
    guard let device else { return }
    let deadline = Deadline.after(seconds: 300)
    let compaction = try Compaction(of: device, parts)
    var left = steps
    while try again({ try compaction.begin(until: deadline) }) != nil {
      while try again({ try compaction.step(limit: 3, until: deadline) }) != nil {
        try between()
        left -= 1
        if left == 0 { return }
      }
    }
  }
}
