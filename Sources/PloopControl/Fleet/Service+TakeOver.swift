internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// A disk whose owner has gone without a word. Whether he is gone, or only silent, decides what is served
// (docs/fleet.md, "Taking over").

extension Service {
  /// Whether somebody may still write to a disk's image: where locks do not tell, or where they are held.
  func mayBeInUse(_ record: DeviceRecord) throws(ServiceError) -> Bool {
    guard !record.readonly, record.snapshot == nil, let top = record.deltas.last else {
      return false
    }
    guard fleet?.settings.hasSharedLocks == true else { return true }
    let location = try roots.locate(top.path, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let file = try roots.open(location, in: folder, writable: true, pointer: "")
    do throws(LockError) { try ImageLock.acquire(file, for: .write) } catch {
      guard case .held = error else { throw ServiceError(DeviceError(error)) }
      return true
    }
    ImageLock.release(file)
    return false
  }

  /// Makes a copy of a disk's top, and a descriptor that names it: whatever the owner before still writes goes into files
  /// that nobody serves.
  ///
  /// The order: the top's copy is durable, then what lies beside it, then the descriptor; the fleet is told with the
  /// record, when the disk is served. A crash in between leaves files that nobody names.
  ///
  /// - Returns: the record of the copy.
  /// - Throws: `takeover-undecided` where the owner before was changing the chain; `insufficient-space`.
  func copied(_ record: DeviceRecord, as ownership: Ownership) throws(ServiceError) -> DeviceRecord
  {
    guard let top = record.deltas.last, !top.isRaw else { return record }
    var record = record
    let suffix = ".e\(ownership.epoch)"
    if let path = record.descriptor {
      let location = try roots.locate(path, pointer: "")
      let folder = try roots.folder(of: location, pointer: "")
      let file = DescriptorFile(in: folder, name: location.name)
      try requireNoChange(of: file, record)
      var descriptor = try read(location, in: folder)
      guard let shot = descriptor.shot(descriptor.topGUID) else { return record }
      let files = try deltas(of: descriptor, to: descriptor.topGUID, at: location)
      guard let newest = files.last else { return record }
      let copy = try copy(newest.path, suffix)
      let name = Service.plain(location.name) + suffix
      try converting { () throws(DeviceError) in
        do throws(DescriptorError) {
          // As the descriptor names it, which need not be from the same folder on.
          try descriptor.replaceFile(of: shot.guid, by: Service.plain(shot.file) + suffix)
        } catch { throw DeviceError(error, path: file.path) }
        try DescriptorFile(in: folder, name: name).replace(with: descriptor)
      }
      try copySmall("\(location.name).notes", to: "\(name).notes", in: folder)
      record.descriptor = Service.sibling(of: path, named: name)
      record.deltas =
        files.dropLast() + [
          DeviceRecord.Delta(path: copy, isRaw: false, guid: newest.guid)
        ]
    } else {
      record.deltas[record.deltas.count - 1].path = try copy(top.path, suffix)
    }
    log.notice(
      "the owner before may still write: a copy of the top is served",
      metadata: ["device": "\(record.id)", "top": "\(record.deltas.last?.path ?? "")"])
    return record
  }

  /// - Throws: `takeover-undecided`.
  private func requireNoChange(
    of file: DescriptorFile, _ record: DeviceRecord
  ) throws(ServiceError) {
    let intent = try converting { () throws(DeviceError) in try IntentFile(beside: file).read() }
    guard let intent else { return }
    throw ServiceError(
      .takeoverUndecided,
      "the chain of \(record.id) was being changed (\(intent.operation.rawValue)) by an owner that may not be gone",
      cause: "lower deltas may still be written by it, and locks do not tell",
      remedy: "make sure that the node before has ended, then detach the device and attach it again"
    )
  }

  /// - Returns: the path of the copy, durable.
  private func copy(_ path: String, _ suffix: String) throws(ServiceError) -> String {
    let location = try roots.locate(path, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let name = Service.plain(location.name) + suffix
    guard name != location.name else {
      throw ServiceError(.imageExists, "\(path) is the copy of this takeover already")
    }
    let source = try roots.open(location, in: folder, writable: false, pointer: "")
    do throws(IOError) {
      // Of an attempt that was cut short; nobody else has this epoch.
      try folder.removeIfThere(name)
      let copy = try folder.create(name)
      try copy.copyAll(of: source)
      try copy.sync()
      let checkpoints = location.name + CheckpointFile.suffix
      if folder.contains(checkpoints) {
        let bytes = try folder.bytes(of: checkpoints, limit: Service.sidecarLimitBytes)
        try folder.replace(name + CheckpointFile.suffix, with: bytes)
      }
      try folder.sync()
    } catch { throw ServiceError(error) }
    return Service.sibling(of: path, named: name)
  }

  private func copySmall(
    _ name: String, to newName: String, in folder: ImageFolder
  ) throws(ServiceError) {
    guard folder.contains(name) else { return }
    do throws(IOError) {
      try folder.replace(
        newName, with: try folder.bytes(of: name, limit: Service.sidecarLimitBytes))
    } catch { throw ServiceError(error) }
  }

  private static let sidecarLimitBytes = 1 << 30

  /// A name without what an earlier takeover has put behind it.
  static func plain(_ name: String) -> String {
    guard let dot = name.lastIndex(of: "."), name[dot...].hasPrefix(".e"),
      name[dot...].dropFirst(2).allSatisfy({ $0.isASCII && $0.isNumber }),
      name[dot...].count > 2
    else { return name }
    return String(name[..<dot])
  }

  private static func sibling(of path: String, named name: String) -> String {
    guard let end = path.lastIndex(where: { $0 == "/" || $0 == ":" }) else { return name }
    return path[...end] + name
  }
}
