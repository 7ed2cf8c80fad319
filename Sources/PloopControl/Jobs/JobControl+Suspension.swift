internal import PloopDevice
internal import PloopIO

extension JobControl {
  /// Call before each step that reads a disk. Whoever waited for a suspended one at its gate could neither be
  /// cancelled nor end with the service.
  ///
  /// - Throws: as ``checkpoint()``.
  func awaitResume(of device: Device, named id: String) throws(JobStop) {
    guard device.isSuspended else { return }
    try wait(for: JobBlocker(kind: .device, id: id, detail: "\(id) is suspended")) {
      !device.isSuspended
    }
  }

  /// A job waits for the check of its disk's index before it has anything of the disk: a detach gives the check up, and
  /// must not wait for a job that waits for it.
  ///
  /// - Throws: as ``checkpoint()``.
  func awaitCheck(of id: String, _ service: Service) throws(JobStop) {
    guard let controller = service.state.withLock({ $0.devices[id] }),
      case .attached(let device) = controller.now.phase, !device.isChecked
    else { return }
    try wait(for: JobBlocker(kind: .device, id: id, detail: "the index of \(id) is being checked"))
    {
      device.isChecked
    }
  }
}
