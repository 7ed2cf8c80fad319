internal import PloopDevice

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
}
