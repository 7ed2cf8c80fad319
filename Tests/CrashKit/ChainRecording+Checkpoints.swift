internal import PloopDevice
internal import PloopIO

extension ChainRecording {
  /// A checkpoint, what the disk had at its instant, and from which position of the trace on it has to
  /// be there, and until when.
  struct Kept {
    static let granularityShift = 12

    /// By which it is known whatever it is called.
    let number: Int
    /// The last that it has been given, and the one before.
    var name: String
    var oldName: String?
    let values: [UInt64]
    var madeAt: Int
    /// Of the instant of a snapshot, which is what a crash leaves of it until somebody is told of both.
    var isLive = false
    var goneFrom = Int.max
    /// From here on it need not say anything.
    var spoiltFrom = Int.max

    func isCalled(_ name: String) -> Bool { name == self.name || name == oldName }
  }

  func newCheckpoint(_ name: String) -> NewCheckpoint {
    NewCheckpoint(
      name, granularityShift: Kept.granularityShift, createdAt: Double(kept.count))
  }

  func keep(_ name: String, _ values: [UInt64]) {
    kept.append(Kept(number: kept.count, name: name, values: values, madeAt: position))
  }

  package func checkpoint(_ name: String) throws {
    guard let device else { return }
    // Everything answered before is durable once it is made.
    let step = history.begin(.flush, at: position)
    _ = try device.makeCheckpoint(newCheckpoint(name), until: .after(seconds: 10))
    history.end(step: step, at: position)
    keep(name, current)
  }

  package func removeCheckpoint(_ name: String) throws {
    let index = kept.firstIndex { $0.name == name && $0.goneFrom == .max }
    if let index { kept[index].goneFrom = position }
    for index in steadyNames.indices where steadyNames[index].name == name {
      steadyNames[index].until = position
    }
    try device?.removeCheckpoint(name, until: .after(seconds: 10))
  }

  /// One takes the name of another, which is forgotten: there is always one of the name.
  package func renameCheckpoint(_ name: String, to new: String) throws {
    guard let old = kept.firstIndex(where: { $0.name == new && $0.goneFrom == .max }),
      let index = kept.firstIndex(where: { $0.name == name })
    else { return }
    kept[old].goneFrom = position
    kept[index].oldName = name
    kept[index].name = new
    try device?.renameCheckpoint(name, to: new, until: .after(seconds: 10))
    steadyNames.append((new, from: kept[old].madeAt, until: Int.max))
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
    let names = device.checkpoints.map(\.name)
    for name in steadyNames where !mayLose && name.from <= position && position < name.until {
      guard names.contains(name.name) else { return "no checkpoint is called \(name.name)" }
    }
    for kept in self.kept {
      guard
        let found = device.checkpoints.first(where: {
          $0.createdAt == Double(kept.number) || keepsBitmapsInImage && $0.name == kept.name
        })
      else {
        guard !mayLose, kept.madeAt <= position, position < kept.goneFrom else { continue }
        return "the checkpoint \(kept.name) is gone"
      }
      guard kept.isCalled(found.name) else {
        return "the checkpoint \(kept.name) is called \(found.name)"
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
