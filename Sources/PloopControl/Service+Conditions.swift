internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// How a device is, for those who look after it.

extension Service {
  /// `Ready` is always there; the others are while they hold.
  func conditions(
    of id: String, _ facts: DeviceController.Facts, _ state: DeviceState, _ device: Device?
  ) -> [DeviceInfo.Condition] {
    [
      readyCondition(of: id, facts, state, device), Service.suspendedCondition(facts.record),
      Service.notesCondition(facts), spaceCondition(of: id, device),
      handOverCondition(facts.record),
    ].compactMap(\.self)
  }

  private func readyCondition(
    of id: String, _ facts: DeviceController.Facts, _ state: DeviceState, _ device: Device?
  ) -> DeviceInfo.Condition {
    let (reason, message): (String, String) =
      switch facts.phase {
      case .attaching: ("Attaching", "")
      case .detaching: ("Detaching", "")
      case .failed(let error): (error.code.rawValue, error.detail)
      case .attached(let device):
        switch state {
        case .degraded:
          (
            "Degraded",
            "\(device.failure ?? ""); reads go on, writes and flushes fail; detach it and attach it with safe repair"
          )
        case .suspended where !isOurs(id)():
          ("NoLease", "this node has no lease, so another one may serve the device")
        case .suspended:
          (
            "Suspended",
            "no request is admitted until it is resumed"
              + (facts.record?.suspension.map { "; suspended by \($0.holder)" } ?? "")
          )
        default: ("Attached", "")
        }
      }
    return DeviceInfo.Condition(
      type: "Ready", isTrue: state == .online, reason: reason, message: message,
      since: facts.since)
  }

  /// There once a suspension has lasted so long that somebody should look at it.
  private static func suspendedCondition(_ record: DeviceRecord?) -> DeviceInfo.Condition? {
    guard let record, record.suspended, let suspension = record.suspension, suspension.isTold else {
      return nil
    }
    return DeviceInfo.Condition(
      type: "SuspendedLong", isTrue: true,
      reason: record.prohibition == nil ? "NotResumed" : "ResumeProhibited",
      message: "suspended by \(suspension.holder)", since: suspension.since)
  }

  /// There while hardly anything is free where the top lies.
  private func spaceCondition(of id: String, _ device: Device?) -> DeviceInfo.Condition? {
    guard let device, !device.isReadOnly, let space = device.space(),
      let shortage = Shortage(of: space, clusterBytes: device.geometry.clusterBytes)
    else {
      shortages.withLock { $0[id] = nil }
      return nil
    }
    let since = shortages.withLock { shortages in
      let since = shortages[id] ?? wallClockSeconds()
      shortages[id] = since
      return since
    }
    return DeviceInfo.Condition(
      type: "SpaceLow", isTrue: true, reason: shortage.rawValue,
      message:
        "\(space.freeBytes) of \(space.totalBytes) bytes are free on the file system of the top",
      since: since)
  }
}
