internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// A snapshot over which another disk is to lie.
struct LinkedBase: Sendable {
  let device: String
  let snapshot: GUID
}

extension Service {
  /// - Throws: `snapshot-not-found`, `snapshot-not-possible`; `too-many-deltas` where nothing more lies over it.
  func requireLinkable(_ base: LinkedBase) throws(ServiceError) {
    let chain = try snapshotChain(
      base.snapshot, of: try controller(base.device), pointer: "/params/snapshot")
    guard chain.deltas.count + 1 < Descriptor.shotLimit else {
      throw ServiceError(
        .tooManyDeltas, "\(chain.deltas.count) deltas lie below \(base.snapshot)", errno: "EMFILE",
        pointer: "/params/snapshot")
    }
  }

  /// Gives a disk its descriptor, by which it lies over a snapshot of another one; may be repeated.
  ///
  /// The order: the base is protected, durably; the notes of the new disk, which has to leave the files alone
  /// that it shares; its descriptor.
  func link(
    _ file: DescriptorFile, at location: Roots.Location, _ top: String, over base: LinkedBase,
    _ geometry: Geometry
  ) throws(ServiceError) {
    let controller = try controller(base.device)
    let (descriptor, place) = try controller.runAndWait { () throws(ServiceError) in
      try self.protect(base.snapshot, of: controller)
    }
    let files = try files(of: base.snapshot, descriptor, at: place, from: location)
    let linked: Descriptor
    do throws(DescriptorError) {
      linked = try Descriptor(
        linkedTo: base.snapshot, of: descriptor, geometry, top: top, files: files)
    } catch { throw ServiceError(DeviceError(error, path: location.path)) }
    var notes = SnapshotNotes(beside: file)
    for shot in linked.shots where shot.guid != linked.topGUID {
      var note = SnapshotNote()
      note.keepsFile = true
      note.isLinked = true
      // What only it writes may receive the snapshot just below; nothing may be merged into a shared file.
      note.isProtected = shot.guid != base.snapshot
      try notes.write(note, on: shot.guid, of: linked)
    }
    try converting { () throws(DeviceError) in try file.replace(with: linked) }
  }

  /// How a disk elsewhere names the files of a snapshot, oldest first.
  private func files(
    of snapshot: GUID, _ descriptor: Descriptor, at base: Roots.Location,
    from location: Roots.Location
  ) throws(ServiceError) -> [String] {
    try deltas(of: descriptor, to: snapshot, at: base).map { (delta) throws(ServiceError) in
      roots.reference(to: try roots.locate(delta.path, pointer: ""), from: location)
    }
  }

  /// Nobody merges or deletes a snapshot any more, nor what it builds on, until somebody says otherwise.
  ///
  /// - Returns: the disk's descriptor, and where it lies.
  private func protect(
    _ snapshot: GUID, of controller: DeviceController
  ) throws(ServiceError) -> (Descriptor, Roots.Location) {
    guard let record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    let (descriptor, location, _) = try tree(of: record, snapshot)
    let chain: [Descriptor.Shot]
    do throws(DescriptorError) { chain = try descriptor.chain(to: snapshot) } catch {
      throw ServiceError(DeviceError(error, path: location.path))
    }
    try annotate(chain.map(\.guid), record, controller) { (note) throws(ServiceError) in
      note.isProtected = true
    }
    return (descriptor, location)
  }
}
