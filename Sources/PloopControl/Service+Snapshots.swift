internal import PloopFormat

extension Service {
  /// The restore points of a disk that was attached by a descriptor, as that says now, in its order;
  /// none of a disk that was attached by a list of files.
  package func snapshots(_ id: String) async throws(ServiceError) -> Page<SnapshotInfo> {
    let controller = try controller(id)
    return try await controller.run { () throws(ServiceError) in
      let record = controller.now.record
      let items = try record.map { (record) throws(ServiceError) in try self.snapshots(of: record) }
      return Page(items: items ?? [], next: nil, revision: record?.revision ?? 0)
    }
  }

  private func snapshots(of record: DeviceRecord) throws(ServiceError) -> [SnapshotInfo] {
    guard let path = record.descriptor else { return [] }
    let location = try roots.locate(path, pointer: "")
    let descriptor = try read(location, in: try roots.folder(of: location, pointer: ""))
    return snapshots(of: record, descriptor, at: location)
  }

  /// - Throws: `snapshot-not-found`.
  func snapshot(_ guid: GUID, of record: DeviceRecord) throws(ServiceError) -> SnapshotInfo {
    guard let snapshot = try snapshots(of: record).first(where: { $0.guid == guid }) else {
      throw ServiceError(
        .snapshotNotFound, "the device \(record.id) has no snapshot \(guid)", errno: "ENOENT")
    }
    return snapshot
  }

  private func snapshots(
    of record: DeviceRecord, _ descriptor: Descriptor, at location: Roots.Location
  ) -> [SnapshotInfo] {
    return descriptor.shots.filter { $0.guid != descriptor.topGUID }.map { shot in
      let children = descriptor.children(of: shot.guid).map(\.guid)
      let file = try? roots.resolve(shot.file, from: location, pointer: "")
      return SnapshotInfo(
        guid: shot.guid, parent: shot.parent == .none ? nil : shot.parent, children: children,
        level: record.deltas.firstIndex { $0.guid == shot.guid.description },
        isCurrent: children.contains(descriptor.topGUID), isTemporary: shot.mark != nil,
        path: file?.path ?? shot.file, isRaw: descriptor.isRaw(shot))
    }
  }
}
