internal import PloopDevice
package import PloopFormat
internal import PloopIO

// The snapshots of a disk as its descriptor, its files and people's notes have them.

extension Service {
  /// The restore points of a disk, in the order of its descriptor; none of a disk that has none.
  ///
  /// What each would free is counted in its index and that of the delta above it: the time that this
  /// takes grows with the size of the disk.
  package func snapshots(_ id: String) async throws(ServiceError) -> Page<SnapshotInfo> {
    let controller = try controller(id)
    return try await controller.run { () throws(ServiceError) in
      let record = controller.now.record
      let items = try record.map { (record) throws(ServiceError) in try self.snapshots(of: record) }
      return Page(items: items ?? [], next: nil, revision: record?.revision ?? 0)
    }
  }

  /// - Throws: `snapshot-not-found`.
  package func snapshot(
    _ id: String, _ guid: GUID
  ) async throws(ServiceError) -> (snapshot: SnapshotInfo, revision: UInt64) {
    let controller = try controller(id)
    return try await controller.run { () throws(ServiceError) in
      guard let record = controller.now.record else { throw Service.missing(guid, of: id) }
      return (try self.snapshot(guid, of: record), record.revision)
    }
  }

  /// Changes what people know of a snapshot; durable when this returns.
  package func changeSnapshot(
    _ id: String, _ guid: GUID, _ change: SnapshotChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> (snapshot: SnapshotInfo, revision: UInt64) {
    try requireServing()
    let controller = try controller(id)
    return try await controller.run { () throws(ServiceError) in
      guard let record = controller.now.record else { throw Service.missing(guid, of: id) }
      try Service.require(ifRevision, is: record.revision)
      try self.annotate([guid], record, controller) { (note) throws(ServiceError) in
        if let name = change.name { note.name = name }
        if let summary = change.summary { note.summary = summary }
        note.isProtected = change.isProtected ?? note.isProtected
        for (name, value) in change.labels ?? [:] { note.labels[name] = value }
        try note.check()
      }
      let now = controller.now.record ?? record
      return (try self.snapshot(guid, of: now), now.revision)
    }
  }

  /// Changes the notes on snapshots of a disk, durably, and tells of those that are other than before.
  func annotate(
    _ guids: [GUID], _ record: DeviceRecord, _ controller: DeviceController,
    _ change: (inout SnapshotNote) throws(ServiceError) -> Void
  ) throws(ServiceError) {
    guard let first = guids.first else { return }
    let (_, location, folder) = try tree(of: record, first)
    // A reader of the disk holds the lock for reading only: others may be changing the tree.
    let lock = try noteLock(location, folder)
    defer { withExtendedLifetime(lock) {} }
    let file = DescriptorFile(in: folder, name: location.name)
    var changed: [GUID] = []
    for guid in guids {
      let (descriptor, _, _) = try tree(of: record, guid)
      let before = notes(beside: file, of: record.id)[guid]
      var note = before
      try change(&note)
      guard note != before else { continue }
      try write(note, on: guid, descriptor, beside: file, of: record.id)
      changed.append(guid)
    }
    guard !changed.isEmpty else { return }
    try commit(record, of: controller, as: .deviceChanged) {
      [changed] (record, transaction) throws(ServiceError) in
      for guid in changed {
        try transaction.note(
          .snapshotChanged, guid.description, device: record.id,
          at: try transaction.nextRevision())
      }
    }
  }

  private func noteLock(
    _ location: Roots.Location, _ folder: ImageFolder
  ) throws(ServiceError) -> DescriptorLock? {
    do throws(LockError) {
      return try descriptorLocks.acquire(location.name, in: folder, exclusive: true)
    } catch { throw ServiceError(DeviceError(error)) }
  }

  /// The note of a snapshot that is being made. A file that cannot be read is left as it is, since it
  /// may protect others: only a change of notes that somebody asks for sets it aside.
  ///
  /// - Returns: what the file is to be, ahead of the snapshot; nil when it is to stay.
  func firstNote(
    _ note: SnapshotNote, on guid: GUID, _ descriptor: Descriptor, beside file: DescriptorFile,
    of device: String
  ) throws(ServiceError) -> ImageFolder.Replacement? {
    var notes = notes(beside: file, of: device)
    guard notes.isDamaged else { return try notes.adding(note, on: guid, of: descriptor) }
    guard note.name == nil, note.summary == nil, note.labels.isEmpty, !note.isProtected else {
      throw ServiceError(
        .snapshotProtected, "the notes beside \(file.path) cannot be read, so none is added",
        remedy: "PATCH a snapshot: the damaged file is set aside then; or leave the name out")
    }
    return nil
  }

  func write(
    _ note: SnapshotNote, on guid: GUID, _ descriptor: Descriptor, beside file: DescriptorFile,
    of device: String
  ) throws(ServiceError) {
    var notes = SnapshotNotes(beside: file)
    try notes.write(note, on: guid, of: descriptor)
    _ = self.notes(beside: file, of: device, inChange: true)
  }

  /// Takes back what ``firstNote(_:on:_:beside:of:)`` gave of a snapshot that was refused. After a
  /// failure that may have made it the note stays.
  func withdrawNote(on guid: GUID, _ chain: ChangeableChain) {
    guard let descriptor = try? read(chain.location, in: chain.file.folder),
      descriptor.shot(guid) == nil
    else { return }
    var notes = SnapshotNotes(beside: chain.file)
    notes.withdraw(guid)
  }

  // MARK: Looking

  private static func missing(_ guid: GUID, of device: String) -> ServiceError {
    ServiceError(
      .snapshotNotFound, "the device \(device) has no snapshot \(guid)", errno: "ENOENT")
  }

  func tree(
    of record: DeviceRecord, _ guid: GUID
  ) throws(ServiceError) -> (Descriptor, Roots.Location, ImageFolder) {
    guard let path = record.descriptor else { throw Service.missing(guid, of: record.id) }
    let location = try roots.locate(path, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let descriptor = try read(location, in: folder)
    guard descriptor.shot(guid) != nil, guid != descriptor.topGUID else {
      throw Service.missing(guid, of: record.id)
    }
    return (descriptor, location, folder)
  }

  private func snapshots(of record: DeviceRecord) throws(ServiceError) -> [SnapshotInfo] {
    guard let path = record.descriptor else { return [] }
    let location = try roots.locate(path, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let descriptor = try read(location, in: folder)
    let notes = notes(
      beside: DescriptorFile(in: folder, name: location.name), of: record.id)
    return descriptor.shots.filter { $0.guid != descriptor.topGUID }.map {
      info(of: $0, record, descriptor, at: location, notes)
    }
  }

  func snapshot(_ guid: GUID, of record: DeviceRecord) throws(ServiceError) -> SnapshotInfo {
    let (descriptor, location, folder) = try tree(of: record, guid)
    guard let shot = descriptor.shot(guid) else { throw Service.missing(guid, of: record.id) }
    let notes = notes(
      beside: DescriptorFile(in: folder, name: location.name), of: record.id)
    return info(of: shot, record, descriptor, at: location, notes)
  }

  private func info(
    of shot: Descriptor.Shot, _ record: DeviceRecord, _ descriptor: Descriptor,
    at location: Roots.Location, _ notes: SnapshotNotes
  ) -> SnapshotInfo {
    let children = descriptor.children(of: shot.guid).map(\.guid)
    let file = try? roots.resolve(shot.file, from: location, pointer: "")
    let size = sizes(of: shot, record, descriptor, at: location)
    let note = notes[shot.guid]
    return SnapshotInfo(
      guid: shot.guid, parent: shot.parent == .none ? nil : shot.parent, children: children,
      level: record.deltas.firstIndex { $0.guid == shot.guid.description },
      isCurrent: children.contains(descriptor.topGUID), isTemporary: shot.mark != nil,
      path: file?.path ?? shot.file, isRaw: descriptor.isRaw(shot), note: note,
      clusters: size.clusters, diskBytes: size.disk, exclusiveBytes: size.exclusive,
      refusal: refusal(of: shot, record, descriptor, at: location, notes)?.code.rawValue)
  }

  /// What deleting a snapshot is refused with now.
  private func refusal(
    of shot: Descriptor.Shot, _ record: DeviceRecord, _ descriptor: Descriptor,
    at location: Roots.Location, _ notes: SnapshotNotes
  ) -> ServiceError? {
    do throws(ServiceError) {
      _ = try writable(try controller(record.id))
      _ = try onlyChild(of: shot.guid, descriptor)
      return whyItStays(shot.guid, of: record.id, descriptor, at: location, notes)
    } catch { return error }
  }

  /// What a snapshot's own delta holds, and what of it nobody would miss: the rest would be copied
  /// into the delta above. What cannot be read counts as nothing.
  private func sizes(
    of shot: Descriptor.Shot, _ record: DeviceRecord, _ descriptor: Descriptor,
    at location: Roots.Location
  ) -> (clusters: UInt64, disk: UInt64, exclusive: UInt64) {
    func open(_ shot: Descriptor.Shot) -> (file: ImageFile, isRaw: Bool)? {
      guard let place = try? roots.resolve(shot.file, from: location, pointer: ""),
        let folder = try? roots.folder(of: place, pointer: ""),
        let file = try? roots.open(place, in: folder, writable: false, pointer: "")
      else { return nil }
      return (file, descriptor.isRaw(shot))
    }
    guard let own = open(shot), let disk = try? own.file.allocatedBytes() else { return (0, 0, 0) }
    let live: Device? =
      if case .attached(let device)? = state.withLock({ $0.devices[record.id] })?.now.phase {
        device
      } else { nil }
    let clusterBytes = descriptor.clusterSectors * Geometry.sectorBytes
    let like = Geometry(
      version: ImageVersion(rawValue: record.version) ?? .v2,
      clusterShift: clusterBytes.trailingZeroBitCount,
      sizeBytes: descriptor.sizeSectors * Geometry.sectorBytes)
    guard let clusters = try? DeltaMerge.clusters(of: own, like: like) else {
      return (0, disk, 0)
    }
    let children = descriptor.children(of: shot.guid)
    guard let child = children.first else { return (clusters, disk, disk) }
    guard children.count == 1 else { return (clusters, disk, 0) }
    let moved: UInt64?
    if child.guid == descriptor.topGUID, let live, !live.isReadOnly {
      moved = try? DeltaMerge.size(in: live, level: live.levels().count - 2).clusters
    } else {
      moved = open(child).flatMap { try? DeltaMerge.count(from: own, into: $0, like: like) }
    }
    let shadowed = clusters - min(clusters, moved ?? clusters)
    return (clusters, disk, min(disk, shadowed * clusterBytes))
  }
}
