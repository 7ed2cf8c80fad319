internal import PloopDevice
internal import PloopIO

extension ChainRecording {
  /// A checkpoint, what the disk had at its instant, and from which position of the trace on it has to
  /// be there, and until when.
  struct Kept {
    static let granularityShift = 12

    let name: String
    let values: [UInt64]
    var madeAt: Int
    /// Of the instant of a snapshot, which is what a crash leaves of it until somebody is told of both.
    var isLive = false
    var goneFrom = Int.max
    /// From here on it need not say anything.
    var spoiltFrom = Int.max

    static func request(_ name: String) -> NewCheckpoint {
      NewCheckpoint(name, granularityShift: granularityShift, createdAt: 0)
    }
  }

  func keep(_ name: String, _ values: [UInt64]) {
    kept.append(Kept(name: name, values: values, madeAt: position))
  }

  package func checkpoint(_ name: String) throws {
    guard let device else { return }
    // Everything answered before is durable once it is made.
    let step = history.begin(.flush, at: position)
    _ = try device.makeCheckpoint(Kept.request(name), until: .after(seconds: 10))
    history.end(step: step, at: position)
    keep(name, current)
  }

  package func removeCheckpoint(_ name: String) throws {
    if let index = kept.firstIndex(where: { $0.name == name }) { kept[index].goneFrom = position }
    try device?.removeCheckpoint(name, until: .after(seconds: 10))
  }

  /// Every checkpoint that has to be there is, and covers each sector whose value is not that of its
  /// instant.
  ///
  /// - Parameters:
  ///   - values: of the disk's sectors.
  ///   - mayLose: whether a checkpoint may say nothing, since a call on its file has failed.
  func checkpointFault(
    _ device: Device, _ values: [UInt64?], at position: Int, mayLose: Bool
  ) -> String? {
    for kept in self.kept {
      guard let found = device.checkpoints.first(where: { $0.name == kept.name }) else {
        guard !mayLose, kept.madeAt <= position, position < kept.goneFrom else { continue }
        return "the checkpoint \(kept.name) is gone"
      }
      if let reason = found.inconsistency {
        let mayFail =
          mayLose || position >= kept.spoiltFrom || position < kept.madeAt
          || closings.contains { $0.contains(position) }
        guard mayFail else { return "the checkpoint \(kept.name) says nothing: \(reason)" }
        continue
      }
      if kept.isLive, position < kept.madeAt { continue }
      for (sector, value) in values.enumerated() where value != kept.values[sector] {
        let offset = UInt64(sector * History.sectorBytes)
        let run = found.runs(of: offset..<offset + UInt64(History.sectorBytes), limit: 1)
        guard run.first?.isDirty == true else {
          return
            "the checkpoint \(kept.name) misses sector \(sector): \(value ?? 0) was \(kept.values[sector])"
        }
      }
    }
    return nil
  }
}
