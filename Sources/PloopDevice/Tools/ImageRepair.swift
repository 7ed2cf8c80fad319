package import PloopIO

/// Safe repair of an image that nobody has open: attach, which repairs it, and detach.
package enum ImageRepair {
  /// - Parameters:
  ///   - source: opened for writing. Each image of a chain can be repaired by itself.
  ///   - locks: of OpenVZ's tools, where the caller has taken them.
  /// - Returns: what was done, in words.
  /// - Throws: `.format` with nothing changed when something is wrong that safe repair does not
  ///   mend.
  package static func run(
    _ source: DeltaSource, holding locks: [DescriptorLock]? = nil
  ) throws(DeviceError) -> [String] {
    let path = source.file.path
    let before = try converting { () throws(IOError) in try source.file.size() }
    var options = AttachOptions()
    options.repairSafely = true
    options.suspended = true
    options.descriptorLocks = locks
    let device = try Device.attach([source], options)
    try device.detach(until: .never)
    if let failure = device.failure { throw DeviceError(.degraded, "\(path): \(failure)") }
    let after = try converting { () throws(IOError) in try source.file.size() }
    // Closing cuts the tail of an image that was clean otherwise.
    guard device.repairs.isEmpty, after < before else { return device.repairs }
    return ["\(path): cut \(before - after) bytes that nothing references"]
  }

  /// The same of those images of a chain that need it.
  ///
  /// - Parameter found: what a check of the same images has said.
  package static func run(
    _ sources: [DeltaSource], whereNeeded found: ChainCheck, holding locks: [DescriptorLock]? = nil
  ) throws(DeviceError) -> [String] {
    var repairs: [String] = []
    for (source, level) in zip(sources, found.levels) where level.verdict == .repairable {
      repairs += try run(source, holding: locks)
    }
    return repairs
  }
}
