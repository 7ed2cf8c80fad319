internal import Logging
internal import PloopDevice
internal import PloopIO

// That the notes on a disk's snapshots cannot be read is told, wherever it is found out: with the device,
// and in the log.

extension Service {
  /// The notes beside a descriptor, as they are now.
  ///
  /// - Parameter isChange: the caller writes down a change of the device anyway, which tells the news.
  func notes(
    beside file: DescriptorFile, of device: String, inChange isChange: Bool = false
  ) -> SnapshotNotes {
    let notes = SnapshotNotes(beside: file)
    guard let controller = state.withLock({ $0.devices[device] }) else { return notes }
    let health = notes.health
    guard controller.keep(health) else { return notes }
    switch health {
    case .sound:
      log.notice(
        "the notes on snapshots are whole",
        metadata: ["device": "\(device)", "file": "\(file.path).notes"])
    case .damaged, .setAside:
      log.warning(
        "the notes on snapshots were damaged",
        metadata: [
          "device": "\(device)", "file": "\(file.path).notes",
          "consequence": "\(health.condition.message)",
        ])
    }
    // Behind whatever changes the device now, as any change of it.
    if !isChange { Task { [weak self] in await self?.tellNotes(of: controller) } }
    return notes
  }

  /// Looks at those of a disk that has just been opened, and is not served yet.
  func lookAtNotes(_ chain: ChainPlan, of device: String) {
    guard let location = chain.descriptor,
      let folder = try? roots.folder(of: location, pointer: "")
    else { return }
    _ = notes(beside: DescriptorFile(in: folder, name: location.name), of: device, inChange: true)
  }

  private func tellNotes(of controller: DeviceController) async {
    try? await controller.run { () throws(ServiceError) in
      guard let record = controller.now.record else { return }
      try self.commit(record, of: controller, as: .deviceState)
    }
  }

  /// Nil for a disk without a descriptor, which has no notes.
  static func notesCondition(_ facts: DeviceController.Facts) -> DeviceInfo.Condition? {
    guard facts.record?.descriptor != nil else { return nil }
    let words = facts.notes.condition
    return DeviceInfo.Condition(
      type: "NotesReadable", isTrue: facts.notes != .damaged, reason: words.reason,
      message: words.message, since: facts.notesSince ?? facts.attachedAt)
  }
}

extension SnapshotNotes.Health {
  /// What they are called, what is protected because of them, and what is to be done.
  fileprivate var condition: (reason: String, message: String) {
    switch self {
    case .sound: ("Readable", "")
    case .damaged:
      (
        "Damaged",
        "no snapshot is merged or deleted, since the notes may protect it, and none is named; restore "
          + "the file, or PATCH a snapshot: the damaged file is set aside then"
      )
    case .setAside:
      (
        "SetAside",
        "damaged notes were set aside: no file of the disk is removed any more, since they may have said "
          + "that others share it; look at the file that ends in .damaged, and remove it"
      )
    }
  }
}
