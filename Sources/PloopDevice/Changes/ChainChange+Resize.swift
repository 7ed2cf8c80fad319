internal import PloopFormat
package import PloopIO

// A larger disk has a header that says so; its descriptor follows. No file is made or removed for it, so
// there is no intent.

extension ChainChange {
  /// Begins to make the disk larger (``Resize``).
  package func beginResize(
    _ device: Device, to sizeBytes: UInt64, until deadline: Deadline
  ) throws(DeviceError) -> Resize {
    _ = try ChainChange.settle(file)
    return try Resize(of: device, to: sizeBytes, until: deadline)
  }

  /// Makes the disk larger, and its descriptor say so.
  ///
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: as ``Resize/finish(descriptor:until:)``.
  package func finish(_ resize: Resize, until deadline: Deadline) throws(DeviceError) -> UInt64 {
    var changed = try file.read()
    changed.resize(toSectors: resize.sizeBytes / Geometry.sectorBytes)
    return try resize.finish(descriptor: (file, changed), until: deadline)
  }

  /// Ends a resize that came as far as the header: has the descriptor say what the header does.
  ///
  /// - Parameter device: attached for writing by the whole of the descriptor's chain.
  /// - Returns: whether there was something to be done.
  package static func completeResize(
    _ file: DescriptorFile, of device: Device
  ) throws(DeviceError) -> Bool {
    var descriptor = try file.read()
    let sectors = device.geometry.sizeBytes / Geometry.sectorBytes
    guard descriptor.sizeSectors < sectors else { return false }
    descriptor.resize(toSectors: sectors)
    try file.replace(with: descriptor)
    return true
  }
}
