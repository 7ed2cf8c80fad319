internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// From what somebody asked for to open files: which files a disk consists of, and who has them.

/// Which files a disk is made of, and the locks under which that was found out.
struct ChainPlan {
  /// Oldest first.
  var deltas: [DeviceRecord.Delta]
  var readonly: Bool
  var descriptor: Roots.Location?
  /// Nil for the top.
  var snapshot: GUID?
  /// What the descriptor says of the clusters.
  var clusterBytes: UInt64?
  var locks: [DescriptorLock] = []

  /// The member of the request that names a level.
  func pointer(_ level: Int) -> String {
    descriptor == nil ? "/deltas/\(level)/path" : "/descriptor"
  }
}

extension Service {
  /// The chain that a descriptor names, read under its lock, so that OpenVZ's tools change nothing
  /// between reading and attaching. A snapshot is only ever read.
  func plan(
    descriptor path: String, at snapshot: GUID?, readonly: Bool
  ) throws(ServiceError) -> ChainPlan {
    let location = try roots.locate(path, pointer: "/descriptor")
    let folder = try roots.folder(of: location, pointer: "/descriptor")
    let readonly = readonly || snapshot != nil
    // A look before the lock: beside what is no descriptor no lock file is made.
    _ = try read(location, in: folder)
    if snapshot == nil { try requireNoRestore(into: location, pointer: "/descriptor") }
    let lock = try lock(location.name, in: folder, readonly: readonly)
    if !readonly { try settle(DescriptorFile(in: folder, name: location.name), at: location) }
    let descriptor = try read(location, in: folder)
    let guid = snapshot ?? descriptor.topGUID
    let deltas = try deltas(of: descriptor, to: guid, at: location)
    if snapshot != nil { try requireNoMerge(in: deltas, of: location) }
    return ChainPlan(
      deltas: deltas, readonly: readonly,
      descriptor: location, snapshot: snapshot,
      clusterBytes: descriptor.clusterSectors * Geometry.sectorBytes,
      locks: lock.map { [$0] } ?? [])
  }

  /// What is being merged away is gone soon, and what receives it is written meanwhile: neither is
  /// read as a snapshot until that is over.
  ///
  /// - Throws: `device-busy` with the job.
  private func requireNoMerge(
    in deltas: [DeviceRecord.Delta], of descriptor: Roots.Location
  ) throws(ServiceError) {
    let sharing = state.withLock { state in
      state.devices.values.filter { $0.now.record?.descriptor == descriptor.path }.map(\.id)
    }
    for device in sharing {
      guard let job = jobs.holder(of: device),
        [MergeJob.type, DeleteSnapshotJob.type].contains(job.type),
        case .text(let merged)? = job.parameters["snapshot"],
        deltas.contains(where: { $0.guid == merged })
      else { continue }
      try requireNoJob(on: device)
    }
  }

  /// The files of a state, oldest first.
  func deltas(
    of descriptor: Descriptor, to guid: GUID, at location: Roots.Location
  ) throws(ServiceError) -> [DeviceRecord.Delta] {
    let chain: [Descriptor.Shot]
    do throws(DescriptorError) {
      chain = try descriptor.chain(to: guid)
      if let mark = chain.last?.mark {
        throw DescriptorError(
          .notPossible,
          "the snapshot \(guid) is marked as \(mark.rawValue): its content may be "
            + "half merged")
      }
    } catch {
      throw ServiceError(
        ServiceError.Code(rawValue: error.code.rawValue), "\(location.path): \(error.detail)",
        pointer: "/at")
    }
    var deltas: [DeviceRecord.Delta] = []
    for shot in chain {
      let file = try roots.resolve(shot.file, from: location, pointer: "/descriptor")
      deltas.append(
        DeviceRecord.Delta(
          path: file.path, isRaw: descriptor.isRaw(shot), guid: shot.guid.description))
    }
    return deltas
  }

  /// The chain that a device had, or that its descriptor has by now.
  func plan(_ record: DeviceRecord) throws(ServiceError) -> ChainPlan {
    guard let path = record.descriptor else {
      return ChainPlan(deltas: record.deltas, readonly: record.readonly)
    }
    return try plan(
      descriptor: path, at: record.snapshot.flatMap { GUID($0) }, readonly: record.readonly)
  }

  func read(
    _ location: Roots.Location, in folder: ImageFolder
  ) throws(ServiceError) -> Descriptor {
    do throws(DeviceError) {
      return try DescriptorFile(in: folder, name: location.name).read()
    } catch {
      guard case .io(let error) = error.kind else {
        var error = ServiceError(error)
        error.pointer = "/descriptor"
        throw error
      }
      throw ServiceError(opening: location.path, error, pointer: "/descriptor")
    }
  }

  func lock(
    _ name: String = Descriptor.fileName, in folder: ImageFolder, readonly: Bool
  ) throws(ServiceError) -> DescriptorLock? {
    do throws(LockError) {
      return try descriptorLocks.acquire(name, in: folder, exclusive: !readonly)
    } catch { throw ServiceError(DeviceError(error)) }
  }

  /// Opens the files, keeps other devices from them, and attaches the disk.
  ///
  /// - Parameter mayHaveChildren: whether others may build on the newest delta: what is written then
  ///   changes no state.
  func openChain(
    _ chain: ChainPlan, for id: String, _ options: AttachOptions, mayHaveChildren: Bool = false
  ) throws(ServiceError) -> Device {
    var sources: [DeltaSource] = []
    var files: [(location: Roots.Location, identity: FileIdentity?)] = []
    for (level, delta) in chain.deltas.enumerated() {
      let pointer = chain.pointer(level)
      let location = try roots.locate(delta.path, pointer: pointer)
      let folder = try roots.folder(of: location, pointer: pointer)
      let isWritten = level == chain.deltas.count - 1 && !options.readonly
      let file = try roots.open(location, in: folder, writable: isWritten, pointer: pointer)
      sources.append(
        DeltaSource(file: file, folder: folder, name: location.name, isRaw: delta.isRaw))
      files.append((location, file.identity))
    }
    try state.withLock { [files] state throws(ServiceError) in
      try state.files.claim(files, for: .device(id), readonly: options.readonly)
    }
    do throws(ServiceError) {
      var options = options
      options.clusterBytes = chain.clusterBytes
      options.indexCache = indexCache
      options.checks = configuration.checks
      options.promptIndexBytes = AttachOptions.promptIndexBytes
      options.engine = engine
      var locks = chain.locks
      if let folder = sources.last?.folder, let top = files.last?.location {
        // Another one than the chain's own, where the top lies beside a descriptor of its own.
        if mayDescribe(top, beside: folder, chain),
          let lock = try lock(in: folder, readonly: options.readonly)
        {
          locks.append(lock)
        }
        if !options.readonly, !mayHaveChildren { try requireNoChildren(of: top, beside: folder) }
      }
      options.descriptorLocks = locks
      let device = try converting { () throws(DeviceError) in
        try Device.attach(sources, options)
      }
      slowOperations.watch(device, as: id)
      if chain.snapshot == nil, !options.readonly {
        completeResize(of: device, describedBy: try descriptorFile(of: chain))
      }
      return device
    } catch {
      // The files stay the device's own until it is forgotten: what it made is unmade before.
      guard chain.descriptor != nil, error.pointer?.hasPrefix("/deltas") == true else {
        throw error
      }
      var error = error
      error.pointer = "/descriptor"
      throw error
    }
  }

  private func descriptorFile(of chain: ChainPlan) throws(ServiceError) -> DescriptorFile? {
    guard let location = chain.descriptor else { return nil }
    return DescriptorFile(
      in: try roots.folder(of: location, pointer: "/descriptor"), name: location.name)
  }

  /// Whether the descriptor beside a top is one by which it is changed: that of a chain that was taken over from an owner
  /// who still has it is not (docs/fleet.md, "Taking over").
  private func mayDescribe(
    _ top: Roots.Location, beside folder: ImageFolder, _ chain: ChainPlan
  ) -> Bool {
    let location = top.sibling(Descriptor.fileName)
    guard let own = chain.descriptor, own != location,
      let descriptor = try? read(location, in: folder)
    else { return true }
    return descriptor.shots.contains {
      (try? roots.resolve($0.file, from: location, pointer: "")) == top
    }
  }

  /// A file that the descriptor beside it has below another delta is not written, whoever lists it.
  private func requireNoChildren(
    of top: Roots.Location, beside folder: ImageFolder
  ) throws(ServiceError) {
    let location = top.sibling(Descriptor.fileName)
    // One that cannot be read keeps nobody from naming the files of a chain by hand.
    guard folder.contains(location.name), let descriptor = try? read(location, in: folder) else {
      return
    }
    for shot in descriptor.shots where !descriptor.children(of: shot.guid).isEmpty {
      guard let file = try? roots.resolve(shot.file, from: location, pointer: ""), file == top
      else {
        continue
      }
      throw ServiceError(
        .imageHasChildren, "\(top.path) is the snapshot \(shot.guid) of \(location.path)",
        cause: "writing it would change every state that builds on it",
        remedy: "attach by the descriptor, or for reading", errno: "EBUSY",
        holder: ServiceError.Holder(kind: "descriptor", id: location.path))
    }
  }
}
