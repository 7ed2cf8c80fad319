internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// A disk that was attached by a list of files, and the descriptor that its first change gives it.

extension Service {
  /// Writes a descriptor beside the top of a disk that was attached by a list of files, or finds the
  /// one that says the same. From then on the device is attached by it.
  ///
  /// A crash in between leaves a descriptor of the same chain: attaching by the list goes on working.
  func describe(
    _ record: DeviceRecord, _ device: Device, _ controller: DeviceController
  ) throws(ServiceError) -> ChangeableChain {
    guard let path = record.deltas.last?.path else {
      throw ServiceError(.deviceBusy, "the device \(record.id) has no files")
    }
    let location = try roots.locate(path, pointer: "").sibling(Descriptor.fileName)
    let folder = try roots.folder(of: location, pointer: "")
    let file = DescriptorFile(in: folder, name: location.name)
    let chain = ChangeableChain(device: record.id, file: file, location: location)
    if folder.contains(location.name) {
      try noteOutcome(beside: file, location)
    } else {
      let files = try record.deltas.map { (delta) throws(ServiceError) in
        roots.reference(to: try roots.locate(delta.path, pointer: ""), from: location)
      }
      let descriptor: Descriptor
      do throws(DescriptorError) {
        descriptor = try Descriptor(
          chain: files, of: device.geometry, isBaseRaw: record.deltas[0].isRaw)
      } catch { throw ServiceError(DeviceError(error, path: location.path)) }
      try noteShared(descriptor, beside: file)
      try converting { () throws(DeviceError) in try file.replace(with: descriptor) }
    }
    // Also where an earlier attempt has got as far as this.
    if let lock = try descriptorLock(of: chain) { device.hold(lock) }
    let descriptor = try read(location, in: folder)
    let deltas = try deltas(of: descriptor, to: descriptor.topGUID, at: location)
    try requireSame(deltas, record, location)
    var record = record
    record.descriptor = location.path
    record.deltas = deltas
    try commit(record, of: controller, as: .deviceChanged)
    return chain
  }

  /// The lower deltas of a list may be below other disks as well: they are never removed.
  private func noteShared(
    _ descriptor: Descriptor, beside file: DescriptorFile
  ) throws(ServiceError) {
    var notes = SnapshotNotes(beside: file)
    for shot in descriptor.shots where shot.guid != descriptor.topGUID {
      var note = SnapshotNote()
      note.keepsFile = true
      try notes.write(note, on: shot.guid, of: descriptor)
    }
  }
}
