internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// Whose snapshot may go.

extension Service {
  /// The shot that builds on a snapshot; nil when nothing does.
  ///
  /// - Throws: `snapshot-not-found`; `snapshot-has-branches` when several do.
  func onlyChild(
    of guid: GUID, _ descriptor: Descriptor
  ) throws(ServiceError) -> Descriptor.Shot? {
    guard descriptor.shot(guid) != nil, guid != descriptor.topGUID else {
      throw ServiceError(.snapshotNotFound, "there is no snapshot \(guid)", errno: "ENOENT")
    }
    let children = descriptor.children(of: guid)
    guard children.count <= 1 else {
      let names = children.map(\.guid.description).joined(separator: ", ")
      throw ServiceError(
        .snapshotHasBranches, "\(children.count) states build on \(guid): \(names)",
        holder: .init(kind: "snapshot", id: children[0].guid.description))
    }
    return children.first
  }

  /// - Parameter isOfClone: whether all that a linked clone shares goes, which is protected.
  /// - Throws: `snapshot-protected`, `export-in-use` or `image-in-use` for a snapshot that is to stay.
  func requireDisposable(
    _ guid: GUID, _ chain: ChangeableChain, ofClone isOfClone: Bool = false
  ) throws(ServiceError) {
    let descriptor = try read(chain.location, in: chain.file.folder)
    let notes = notes(beside: chain.file, of: chain.device)
    if let refusal = whyItStays(
      guid, of: chain.device, descriptor, at: chain.location, notes, ofClone: isOfClone)
    {
      throw refusal
    }
  }

  /// Why a snapshot may be neither merged nor deleted now; nil when it may. Whoever asks what could be
  /// deleted hears the same as whoever deletes.
  func whyItStays(
    _ guid: GUID, of device: String, _ descriptor: Descriptor, at location: Roots.Location,
    _ notes: SnapshotNotes, ofClone isOfClone: Bool = false
  ) -> ServiceError? {
    let children = descriptor.children(of: guid)
    let isShared = notes[guid].isLinked == true
    // What receives it must be the clone's own, whether or not anybody has the other disk.
    let isFreed = isOfClone && isShared && children.allSatisfy { notes[$0.guid].isLinked != true }
    if notes[guid].isProtected && !isFreed || notes.isDamaged {
      return ServiceError(
        .snapshotProtected,
        notes.isDamaged
          ? "the notes beside \(location.path) cannot be read; they may protect \(guid)"
          : "the snapshot \(guid) is protected",
        remedy: notes.isDamaged
          ? "PATCH the snapshot: the damaged file is set aside then" : nil, errno: "EBUSY",
        holder: ServiceError.Holder(kind: "snapshot", id: guid.description))
    }
    if let refusal = whyItIsRead(guid, of: device) { return refusal }
    // What a linked clone shares is only read by a merge into a file that nobody else has.
    if isShared, let child = children.first, children.count == 1,
      user(of: child, but: device, at: location) == nil
    {
      return nil
    }
    guard let shot = descriptor.shot(guid),
      let (file, other) = user(of: shot, but: device, at: location)
    else { return nil }
    let holder = other.holder
    return ServiceError(
      .imageInUse, "\(file.path) is a part of the \(holder.kind) \(holder.id)", errno: "EBUSY",
      holder: holder)
  }

  /// Who else has the file of a shot in a chain.
  private func user(
    of shot: Descriptor.Shot, but device: String, at location: Roots.Location
  ) -> (file: Roots.Location, user: FileRegistry.User)? {
    guard let file = try? roots.resolve(shot.file, from: location, pointer: ""),
      let user = state.withLock({ $0.files.user(of: file, but: device) })
    else { return nil }
    return (file, user)
  }

  /// - Throws: `export-in-use` for a snapshot that is read through an export.
  func requireNotExported(_ guid: GUID, of device: String) throws(ServiceError) {
    if let refusal = whyItIsRead(guid, of: device) { throw refusal }
  }

  private func whyItIsRead(_ guid: GUID, of device: String) -> ServiceError? {
    guard let export = export(reading: guid, of: device) else { return nil }
    return ServiceError(
      .exportInUse, "the snapshot \(guid) is read through the export \(export)",
      remedy: "DELETE that export first", errno: "EBUSY",
      holder: ServiceError.Holder(kind: "export", id: export))
  }

  /// Whether a delta's file stays when its snapshot goes: it was there before the descriptor, and
  /// nobody knows what else builds on it.
  func keepsFile(_ guid: GUID, _ chain: ChangeableChain) -> Bool {
    notes(beside: chain.file, of: chain.device).keepsFile(guid)
  }

  /// - Throws: as ``onlyChild(of:_:)``, and `nothing-to-merge` where nothing builds on it.
  func child(of guid: GUID, _ descriptor: Descriptor) throws(ServiceError) -> Descriptor.Shot {
    guard let child = try onlyChild(of: guid, descriptor) else {
      throw ServiceError(
        .nothingToMerge, "nothing builds on the snapshot \(guid)",
        remedy: "DELETE it, if it is needed no longer", errno: "ENOENT")
    }
    return child
  }
}
