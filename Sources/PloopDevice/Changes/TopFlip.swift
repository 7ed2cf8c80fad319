internal import PloopFormat
internal import PloopIO

/// The top and the delta below it change places: the older one is written from now on, and what guests
/// wrote so far lies beneath it. A merge of the two then copies what the smaller of them held.
///
/// A delta above another one shadows it, so whatever the older one has of clusters that the top has too
/// is taken out of its index first. The map stays as it is: it never named those.
struct TopFlip {
  private let device: Device
  /// What is written now, and will be beneath.
  private let old: Writing
  private let top: Delta
  private let base: Delta
  private let receiver: MergeReceiver
  private let own: MergeReceiver.Own

  /// Opens the older delta for writing, and marks it as in use, durably.
  ///
  /// - Throws: `.refused(.nothingBelow)`, `.refused(.rawNotAllowed)`, `.refused(.overlap)`, and what
  ///   opening throws, with nothing changed.
  init(of device: Device) throws(DeviceError) {
    let chain = device.chain
    guard let writing = chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    try device.condition.requireWritable()
    top = chain.top
    base = try TopFlip.base(of: chain)
    self.device = device
    old = writing
    receiver = try MergeReceiver(lower: base, merging: top, of: device)
    guard let own = receiver.own else {
      throw DeviceError(.detached, "\(base.file.path) has no index of its own")
    }
    self.own = own
    do throws(DeviceError) { try requireKnown() } catch {
      receiver.close(isInChain: false)
      throw error
    }
  }

  /// The delta that is to be the top.
  static func base(of chain: DeltaChain) throws(DeviceError) -> Delta {
    guard chain.topLevel > 0 else {
      throw DeviceError(.refused(.nothingBelow), "nothing lies below the top")
    }
    let base = chain.deltas[chain.topLevel - 1]
    guard !base.isRaw else {
      throw DeviceError(
        .refused(.rawNotAllowed), "\(base.file.path) is raw, and can only be the oldest")
    }
    return base
  }

  /// The older delta's index has to be what the disk reads from there, beside what the top shadows.
  private func requireKnown() throws(DeviceError) {
    guard own.index.geometry == device.geometry else {
      throw DeviceError(
        .refused(.overlap),
        "\(base.file.path) is of a larger disk, \(own.index.geometry.sizeBytes) bytes")
    }
    var owners = device.map.walk()
    let had = base.had.clusters
    for cluster in 0..<own.index.geometry.clusterCount {
      let (found, place) = (own.index[cluster], try owners.place(of: cluster))
      // What is not in memory says what the file says by now.
      let isAsBefore = had.map { $0.contains(cluster) == (found != nil) } ?? true
      let isKnown =
        switch place?.delta {
        // All zero and dropped by a merge that was given up.
        case nil: isAsBefore
        case base.number: isAsBefore && found == place
        case top.number: true
        default: isAsBefore && found == nil
        }
      guard isKnown else {
        throw DeviceError(
          .refused(.overlap),
          "\(base.file.path): another program has changed where cluster \(cluster) is")
      }
    }
  }

  /// The order is that of docs/crash-safety.md.
  ///
  /// - Parameters:
  ///   - saved: the file beside the descriptor that holds the older delta's index until the change is
  ///     made; nil where nobody needs its state.
  ///   - file: the disk's descriptor, whose lock the caller holds.
  ///   - changed: what it is to be.
  ///   - deadline: by when requests in flight have to end.
  ///   - giveUp: makes durable that nobody goes back to the older delta's state.
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: with the chain as it was.
  func run(
    saving saved: String?, descriptor file: DescriptorFile, becoming changed: Descriptor,
    until deadline: Deadline, giveUp: () throws(DeviceError) -> Void
  ) throws(DeviceError) -> UInt64 {
    try device.checkpointing.withLock { _ throws(DeviceError) in
      let move: CheckpointMove?
      do throws(DeviceError) {
        move = try CheckpointMove(of: device, to: own.source, beginning: nil)
      } catch {
        receiver.close(isInChain: false)
        throw error
      }
      do throws(DeviceError) {
        let pause = try exchange(saved, file, changed, move, until: deadline, giveUp: giveUp)
        move?.finish()
        return pause
      } catch {
        // Where it is unknown which top a crash leaves, either has its file.
        if device.failure == nil { move?.abandon() }
        throw error
      }
    }
  }

  private func exchange(
    _ saved: String?, _ file: DescriptorFile, _ changed: Descriptor, _ move: CheckpointMove?,
    until deadline: Deadline, giveUp: () throws(DeviceError) -> Void
  ) throws(DeviceError) -> UInt64 {
    var takenOut: [(cluster: UInt64, place: Place)] = []
    let had = base.had.clusters
    let pause: UInt64
    do throws(DeviceError) {
      // Of clusters that are taken out below as well: the disk is suspended, so nothing more is lent.
      try receiver.awaitHolders(until: deadline)
      try receiver.grow(until: deadline)
      if let saved {
        try SavedIndex(saved, in: file.folder).save(
          own.source.file, bytes: own.index.geometry.headerBytes)
      }
      try giveUp()
      try file.prepare(with: changed)
      try old.index.flush()
      pause = try device.change(until: deadline) { (chain) throws(DeviceError) in
        try old.index.flush()
        // What is taken out is no loss.
        base.had.note(nil)
        try takeOut(&takenOut)
        try receiver.writing.index.flush()
        let used = try self.used()
        try device.publish(file)
        move?.begin()
        old.index.retire()
        receiver.writing.index.retire()
        return flipped(chain, used)
      } repointing: {
        readersFollow()
      }
    } catch {
      try? file.abandon()
      if putBack(takenOut) { base.had.note(had) }
      receiver.close(isInChain: false)
      throw error
    }
    device.freeze(old)
    return pause
  }

  /// Takes what the top has out of the older delta's index.
  private func takeOut(
    _ shadowed: inout [(cluster: UInt64, place: Place)]
  ) throws(DeviceError) {
    var owners = device.map.walk()
    for cluster in 0..<own.index.geometry.clusterCount {
      guard let place = own.index[cluster],
        try owners.place(of: cluster)?.delta != base.number
      else { continue }
      shadowed.append((cluster, place))
      set(cluster, nil)
    }
  }

  /// The map never named what was taken out, so nothing should differ. Whatever did would lead to a place that is free
  /// in the new top, or hide what that has.
  private func readersFollow() {
    device.map.repoint(with: nil) { cluster, place in
      let found = own.index.place(of: cluster)
      guard found != place, found != nil || place?.delta == base.number else { return nil }
      return PagedMap.Replacement(place: found)
    }
  }

  private func set(_ cluster: UInt64, _ place: Place?) {
    own.index[cluster] = place
    receiver.writing.index.markDirty(Geometry.position(of: cluster).page)
  }

  /// The older delta is what it was. Where nobody knows which descriptor is there, or how much of the
  /// index, the next attach has the saved one.
  ///
  /// - Returns: whether its index is known to be as it was.
  private func putBack(_ takenOut: [(cluster: UInt64, place: Place)]) -> Bool {
    guard !takenOut.isEmpty else { return true }
    for (cluster, place) in takenOut { set(cluster, place) }
    do throws(DeviceError) {
      try device.condition.requireWritable()
      try receiver.writing.index.flush()
      return true
    } catch {
      own.condition.degrade("\(error); it may lack entries that were taken out of its index")
      return false
    }
  }

  /// Clusters of the older delta's file that its index, as it is in the file now, uses.
  private func used() throws(DeviceError) -> Bitmap {
    let geometry = own.index.geometry
    let found = ClusterMap(geometry)
    let written = Delta(
      number: base.number, source: own.source, layout: .ploop(geometry), mappedClusters: 0)
    let used = try DeltaClusters.load(written, into: found)
    for cluster in 0..<geometry.clusterCount where found[cluster] != own.index[cluster] {
      throw DeviceError(
        .refused(.overlap),
        "\(base.file.path): another program has changed where cluster \(cluster) is")
    }
    return used
  }

  private func flipped(_ chain: DeltaChain, _ used: Bitmap) -> DeltaChain {
    let geometry = own.index.geometry
    let lower = Delta(
      number: top.number, source: top.source, layout: top.layout,
      mappedClusters: old.allocator.dataClusters)
    let upper = Delta(
      number: base.number, source: own.source, layout: .ploop(geometry),
      mappedClusters: own.index.mappedCount)
    let writing = Writing(
      upper, geometry: geometry, used: used, map: device.map, gate: device.gate,
      condition: device.condition, canPunch: receiver.writing.canPunch)
    return DeltaChain(
      chain.deltas.dropLast(2) + [lower, upper], geometry: geometry, writing: writing)
  }
}
