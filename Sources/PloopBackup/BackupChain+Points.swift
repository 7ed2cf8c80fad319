internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// A point of a chain as it is listed.
package struct BackupPoint: Sendable {
  package enum State: Sendable, Equatable {
    /// The descriptor names it, and so it does everything that it builds on; what is in its clusters only
    /// a check tells (``PointCheck``).
    case whole
    /// It was begun, and can be gone on with or removed.
    case partial
    /// Something that it builds on is damaged or gone.
    case missingParent(String)
    /// It is of no use, for this reason, and can be removed.
    case damaged(String)
  }

  package let id: String
  package let state: State
  /// Nil where there is none that can be read.
  package let manifest: PointManifest?
  /// Points of its chain up to this one; 0 for one that is in no chain.
  package let chainLength: Int
  /// Bytes of its files on the disk.
  package let diskBytes: UInt64
  /// Bytes that are looked at to check it; nil where nobody knows.
  package let checkedBytes: UInt64?
}

extension BackupChain {
  /// All points of the folder: those of the chain, oldest first, and then what else lies there. Of a chain
  /// whose descriptor cannot be read all are damaged.
  ///
  /// - Throws: `.target`.
  package func points() throws(BackupError) -> [BackupPoint] {
    let (ids, problem) = try readableIDs()
    let names = try onTarget { () throws(IOError) in try folder.names() }
    var points: [BackupPoint] = []
    var broken: String?
    for (place, id) in ids.enumerated() {
      var state = try stateOfWhole(id)
      if state != .whole {
        broken = broken ?? id
      } else if let broken {
        state = .missingParent(broken)
      }
      points.append(try point(id, state, chainLength: place + 1, names))
    }
    let others = Set(names.compactMap(BackupNames.point(ofFile:))).subtracting(ids)
    for id in others.sorted() {
      let state: BackupPoint.State =
        if let problem { .damaged(problem) } else { try stateOfOther(id, above: ids) }
      points.append(try point(id, state, chainLength: 0, names))
    }
    return points
  }

  /// The whole points, oldest first: none where the descriptor is damaged, and in what way it is.
  private func readableIDs() throws(BackupError) -> (ids: [String], problem: String?) {
    do throws(BackupError) { return (try ids(descriptor()), nil) } catch {
      if case .target = error.kind { throw error }
      return ([], "the chain's descriptor cannot be used: \(error.detail)")
    }
  }

  private func point(
    _ id: String, _ state: BackupPoint.State, chainLength: Int, _ names: [String]
  ) throws(BackupError) -> BackupPoint {
    let files = names.filter { BackupNames.point(ofFile: $0) == id }
    var bytes: UInt64 = 0
    for file in files {
      bytes += try onTarget { () throws(IOError) in try folder.diskBytes(of: file) }
    }
    let manifest = try? manifest(id)
    return BackupPoint(
      id: id, state: state, manifest: manifest, chainLength: chainLength, diskBytes: bytes,
      checkedBytes: manifest?.result?.bytesWritten)
  }

  private func stateOfWhole(_ id: String) throws(BackupError) -> BackupPoint.State {
    do {
      guard try manifest(id).result != nil else {
        return .damaged("its manifest does not say that it is whole")
      }
    } catch {
      if case .target = error.kind { throw error }
      return .damaged(error.detail)
    }
    for suffix in [BackupNames.image, BackupNames.journal] where !folder.contains(id + suffix) {
      return .damaged("\(id)\(suffix) is missing")
    }
    return .whole
  }

  private func stateOfOther(
    _ id: String, above whole: [String]
  ) throws(BackupError) -> BackupPoint.State {
    do {
      if let parent = try manifest(id).parent, !whole.contains(parent) {
        return .missingParent(parent)
      }
      return .partial
    } catch {
      if case .target = error.kind { throw error }
      return .damaged(error.detail)
    }
  }

  /// The points that build on one, oldest first: those of the chain, and others that say so.
  package func dependents(of id: String) throws(BackupError) -> [String] {
    let (ids, _) = try readableIDs()
    var dependents = ids.firstIndex(of: id).map { Array(ids[($0 + 1)...]) } ?? []
    let names = try onTarget { () throws(IOError) in try folder.names() }
    let others = Set(names.compactMap(BackupNames.point(ofFile:))).subtracting(ids)
    var rest = others.sorted().compactMap { other in (try? manifest(other)).map { (other, $0) } }
    // Each may build on one that was found before.
    while let next = rest.firstIndex(where: { other in
      other.1.parent.map { $0 == id || dependents.contains($0) } ?? false
    }) {
      dependents.append(rest.remove(at: next).0)
    }
    return dependents
  }

  // MARK: Removing

  /// Removes a point, whole or not: first from the descriptor, then its files, the manifest last. May be
  /// repeated after a crash, which leaves the point, or files of it that are listed.
  ///
  /// - Throws: `.hasDependents`; `.locked` when somebody writes it or has it open; `.notFound`, `.target`.
  package func remove(_ id: String) throws(BackupError) {
    let files = try onTarget { () throws(IOError) in try folder.names() }
      .filter { BackupNames.point(ofFile: $0) == id }
    // Of a chain that nobody can use nothing is left in order.
    let isReadable = try readableIDs().problem == nil
    let descriptor = isReadable ? try descriptor() : nil
    let isWhole = try ids(descriptor).contains(id)
    guard isWhole || !files.isEmpty else {
      throw BackupError(.notFound, "\(folder.path): there is no backup \(id)")
    }
    let dependents = try dependents(of: id)
    guard dependents.isEmpty else {
      throw BackupError(.hasDependents(dependents), "\(id): \(dependents[0]) builds on it")
    }
    let image = try lockImage(id)
    defer { withExtendedLifetime(image) {} }
    if isWhole, let descriptor { try removeNewest(descriptor) }
    try onTarget { () throws(IOError) in
      // What is in an image says its journal, and what both belong to the manifest: who goes on with a point needs each as
      // long as there is something that it tells of.
      let (journal, manifest) = (id + BackupNames.journal, id + BackupNames.manifest)
      let steps = [
        files.filter { $0 != journal && $0 != manifest }, files.filter { $0 == journal },
        files.filter { $0 == manifest },
      ]
      for names in steps where !names.isEmpty {
        for name in names { try folder.unlink(name) }
        try folder.sync()
      }
    }
  }

  private func lockImage(_ id: String) throws(BackupError) -> ImageFile? {
    let name = id + BackupNames.image
    guard folder.contains(name) else { return nil }
    let file = try onTarget { () throws(IOError) in try folder.open(name, writable: true) }
    do {
      try ImageLock.acquire(file, for: .write)
    } catch { throw BackupError(error) }
    return file
  }

  private func removeNewest(_ descriptor: Descriptor) throws(BackupError) {
    let lock = try lock()
    defer { withExtendedLifetime(lock) {} }
    guard descriptor.shots.count > 1 else {
      return try onTarget { () throws(IOError) in
        try folder.unlink(Descriptor.fileName)
        try folder.sync()
      }
    }
    var new = descriptor
    do {
      _ = try new.removeTop()
    } catch { throw BackupError(error, descriptorFile.path) }
    do {
      for newest in try ids(new).suffix(1) {
        new.resize(toSectors: try manifest(newest).sizeBytes / Geometry.sectorBytes)
      }
    } catch {
      // A damaged manifest keeps nobody from removing what builds on it.
      if case .target = error.kind { throw error }
    }
    try replace(new)
  }
}
