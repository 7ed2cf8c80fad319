package import PloopFormat
package import PloopIO

// A snapshot of a disk that is in use (docs/crash-safety.md, "Snapshot").

extension ChainChange {
  /// Where the empty delta of a new top comes from.
  package enum TopSource: Sendable {
    case made
    /// An image that is there, and how the descriptor is to name it.
    case taken(name: String, in: ImageFolder, file: String)
  }

  /// A snapshot of an attached disk (``Device/snapshot(onto:descriptor:using:until:)``).
  ///
  /// The caller ends it in any case, or lets it settle down.
  ///
  /// - Parameters:
  ///   - guid: its name.
  ///   - checkpoint: begins at the same instant.
  ///   - notes: a file beside the descriptor that is to be replaced ahead of the change, and means
  ///     nothing without it.
  package func snapshot(
    _ device: Device, as guid: GUID, onto source: TopSource,
    beginning checkpoint: NewCheckpoint? = nil, notes: ImageFolder.Replacement? = nil,
    until deadline: Deadline
  ) throws(DeviceError) -> Made {
    let before = try ChainChange.settle(file)
    var changed = before.descriptor
    let name = changed.newFileName()
    let (top, made) =
      switch source {
      case .made: (name, [name])
      case .taken(_, _, let file): (file, [])
      }
    try describing { () throws(DescriptorError) in
      try changed.addSnapshot(guid, newTopFile: top)
    }
    // Of the checkpoints beside the two tops, those of the one that is no top are removed.
    let tops = [before.descriptor.shot(before.descriptor.topGUID)?.file, top].compactMap { $0 }
    let intent = self.intent(
      .snapshot, guid, before, files: made + CheckpointMove.leftovers(beside: tops))
    // Beside all that comes before the gate, so that little is left to do when it is closed.
    let ahead = helpers.begin { () throws(DeviceError) in try device.flushAhead() }
    do throws(DeviceError) {
      try begin(intent, notes, becoming: changed, newTop: made.first, of: device)
      let top =
        switch source {
        case .made: try NewTop(made: name, in: file.folder)
        case .taken(let name, let folder, _):
          try NewTop(taking: name, in: folder, geometry: device.geometry)
        }
      do throws(DeviceError) {
        try ahead.result()
        let pause = try device.snapshot(
          onto: top, descriptor: file, beginning: checkpoint, using: helpers, until: deadline)
        return Made(
          descriptor: changed, pauseNanoseconds: pause, intent: intent,
          closing: helpers.begin { device.closeFrozen() })
      } catch {
        // Where it is unknown which descriptor a crash leaves, either has its files.
        if device.failure == nil { top.abandon() }
        throw error
      }
    } catch {
      ahead.end()
      if device.failure == nil { _ = try? ChainChange.settle(file) }
      throw error
    }
  }

  /// Makes durable, at the same time, what a snapshot needs before its moment: the intent, the new
  /// descriptor beside the old one, the notes, and the new top, if one is made.
  ///
  /// Everything is written under names that mean nothing, and synced. Then the names are given, the
  /// intent's before that of the file which it speaks of, and the folder is synced once for all of them.
  private func begin(
    _ intent: ChainIntent, _ notes: ImageFolder.Replacement?, becoming changed: Descriptor,
    newTop: String?, of device: Device
  ) throws(DeviceError) {
    let file = self.file
    let intents = IntentFile(beside: file)
    var works = [
      helpers.begin { () throws(DeviceError) in try intents.prepare(intent) },
      helpers.begin { () throws(DeviceError) in try file.prepare(with: changed) },
    ]
    if newTop != nil {
      works.append(
        helpers.begin { () throws(DeviceError) in
          try NewTop.prepare(beside: file, geometry: device.geometry)
        })
    }
    if let notes {
      works.append(
        helpers.begin { () throws(DeviceError) in
          try converting { () throws(IOError) in
            try file.folder.prepare(notes.name, with: notes.bytes)
          }
        })
    }
    try SideWork.end(works)
    try converting { () throws(IOError) in
      if let notes { try file.folder.publish(notes.name) }
      try file.folder.publish(intents.name)
    }
    if let newTop { try NewTop.name(newTop, beside: file) }
    try converting { () throws(IOError) in try file.folder.sync() }
  }
}
