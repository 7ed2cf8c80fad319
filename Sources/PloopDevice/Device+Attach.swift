internal import PloopFormat
package import PloopIO

package struct AttachOptions: Sendable {
  /// Not a byte of any file is written.
  package var readonly = false
  /// An image that was not closed is repaired as far as that destroys nothing (`Repair.swift`).
  package var repairSafely = false
  /// No request is admitted until ``Device/resume()``.
  package var suspended = false
  /// Locks of OpenVZ's tools that the caller has taken for this disk, of its descriptor and of the
  /// one beside the top; nil leaves the latter to ``Device/attach(_:_:)``.
  package var descriptorLocks: [DescriptorLock]?
  /// Bytes of a cluster, where the caller has been told; images with others are refused.
  package var clusterBytes: UInt64?
  /// A clean detach writes checkpoints whose names are UUIDs into the image as well, as the dirty
  /// bitmaps of ploop's format extension.
  package var bitmapsInImage = false
  /// Indexes of which more bytes have been written are checked behind the attach; reads are served meanwhile. Nil for
  /// who wants to know before that all of it is right.
  package var promptIndexBytes: UInt64?
  /// Whose threads wait for that check, if any.
  package var engine: IOEngine?
  /// Where the pages of the map are kept, one for all disks of a service; nil for one of the disk's own.
  package var indexCache: FramePool?
  /// Who checks indexes behind the attach.
  package var checks = CheckQueue.shared
  package var sharing = SharingBounds()

  package init() {}

  /// Enough for the index of 32 TiB in clusters of 1 MiB.
  package static let indexCacheBytes = 64 << 20
  /// What is read of an index in no time.
  package static let promptIndexBytes: UInt64 = 1 << 20
}

/// From how many bytes on blocks are shared, where the file system can, instead of being copied: of fewer, copying costs
/// less (docs/performance.md, "Shared blocks").
package struct SharingBounds: Sendable {
  /// What a guest's write leaves as it was of a cluster that it copies.
  package var keptBytes: UInt64 = 256 << 10
  /// A cluster that is merged or moved.
  package var movedBytes: UInt64 = 64 << 10

  package init() {}
}

extension Device {
  /// Opens a chain: oldest delta first, the last is the top.
  ///
  /// The order (docs/crash-safety.md, "Attach"): locks; sync of what may be written, so that no
  /// index is read that a power failure could still take back; headers and every index checked,
  /// with nothing changed if anything is wrong; safe repair, durable; the in-use mark, durable,
  /// since other tools respect only it.
  package static func attach(
    _ sources: [DeltaSource], _ options: AttachOptions = AttachOptions()
  ) throws(DeviceError) -> Device {
    let opener = ChainOpener(sources: sources, options: options)
    try opener.checkSources()
    let descriptorLocks = try lock(sources, options)
    var handedOver = false
    defer { if !handedOver { sources.forEach { ImageLock.release($0.file) } } }

    if !options.readonly { try syncBeforeReading(sources) }
    var (geometry, levels) = try opener.readHeaders()
    if let told = options.clusterBytes, told != geometry.clusterBytes {
      throw DeviceError(
        FormatError(
          .geometryMismatch,
          "clusters of \(geometry.clusterBytes) bytes; the descriptor says \(told)"),
        level: levels.count - 1, path: levels[levels.count - 1].source.file.path)
    }
    if !options.repairSafely { try opener.requireClosed(levels.enumerated()) }
    // A sync that failed in an earlier life leaves pages in the cache that no disk has.
    for level in levels where level.isUnclean { level.source.file.dropFromPageCache() }
    let map = PagedMap(
      geometry,
      pool: options.indexCache ?? FramePool(budgetBytes: AttachOptions.indexCacheBytes))
    let check = try IndexCheck(of: levels, opener, counting: map)
    if check == nil { try opener.checkIndexes(&levels, counting: map) }
    let deltas = levels.enumerated().map { number, level in
      Delta(
        number: number, source: level.source, layout: level.layout, mappedClusters: level.mapped,
        had: FormerClusters(level.had))
    }
    map.follow(deltas, geometry, isWritten: !options.readonly)
    if check == nil { try map.loadIfSmall() }

    let (recorder, notes) = try CheckpointLoader(levels: levels, geometry: geometry)
      .load(readonly: options.readonly)
    var repairs = notes
    var canPunch = false
    if !options.readonly {
      let top = levels.count - 1
      for level in levels.indices {
        repairs += try Repair.run(&levels[level], isTop: level == top)
      }
      // The mark first: a header must not name an extension that has been cut off.
      try markInUse(levels[top])
      if check == nil { try cutTail(&levels[top], geometry) }
      canPunch = Device.canPunch(levels[top].source.file, at: levels[top].fileBytes)
    }
    let device = Device(
      geometry: geometry, deltas: deltas,
      used: check == nil ? levels[levels.count - 1].used : IndexScan(geometry, fileBytes: 0).used,
      map: map,
      canPunch: canPunch, options, isChecked: check == nil, repairs: repairs,
      descriptorLocks: descriptorLocks, recorder: recorder)
    check?.begin(on: device)
    if options.suspended { try device.suspend(until: .never) }
    handedOver = true
    return device
  }

  private convenience init(
    geometry: Geometry, deltas: [Delta], used: Bitmap, map: PagedMap, canPunch: Bool,
    _ options: AttachOptions, isChecked: Bool, repairs: [String], descriptorLocks: [DescriptorLock],
    recorder: CheckpointRecorder?
  ) {
    let gate = Gate()
    let condition = Condition(isChecked: isChecked, engine: options.engine) {
      map.table.setAside()
    }
    let writing =
      options.readonly
      ? nil
      : Writing(
        deltas[deltas.count - 1], geometry: geometry, used: used, map: map,
        gate: gate, condition: condition, canPunch: canPunch)
    self.init(
      chain: DeltaChain(deltas, geometry: geometry, writing: writing), map: map, gate: gate,
      condition: condition, readonly: options.readonly, repairs: repairs,
      descriptorLocks: descriptorLocks, recorder: recorder,
      keepsBitmapsInImage: options.bitmapsInImage, checks: options.checks,
      sharing: options.sharing)
  }

  /// Takes QEMU's locks on every image, and OpenVZ's on the folder of the top.
  private static func lock(
    _ sources: [DeltaSource], _ options: AttachOptions
  ) throws(DeviceError) -> [DescriptorLock] {
    var locked: [ImageFile] = []
    do throws(LockError) {
      for (level, source) in sources.enumerated() {
        let writes = level == sources.count - 1 && !options.readonly
        try ImageLock.acquire(source.file, for: writes ? .write : .read)
        locked.append(source.file)
      }
      if let taken = options.descriptorLocks { return taken }
      let lock = try DescriptorLock.acquire(
        in: sources[sources.count - 1].folder, exclusive: !options.readonly)
      return lock.map { [$0] } ?? []
    } catch {
      locked.forEach { ImageLock.release($0) }
      throw DeviceError(error)
    }
  }

  /// Rule 0: a killed process leaves unsynced pages in the page cache; building on them and then
  /// losing them would put an old index on new bytes.
  private static func syncBeforeReading(_ sources: [DeltaSource]) throws(DeviceError) {
    guard let top = sources.last else { return }
    guard top.file.isWritable else {
      throw DeviceError(.readOnly, "\(top.file.path) was opened for reading only")
    }
    try converting { () throws(IOError) in
      for source in sources { try source.file.sync() }
      try top.folder.sync()
    }
  }

  /// Cuts what lies behind the last cluster that is referenced: an interrupted extension, or space
  /// that was reserved ahead. From here on the free map covers the file exactly.
  static func cutTail(
    _ top: inout ChainOpener.Level, _ geometry: Geometry
  ) throws(DeviceError) {
    let needed = UInt64((top.used.lastSet ?? 0) + 1) << UInt64(geometry.clusterShift)
    top.used.resize(to: Int(needed >> UInt64(geometry.clusterShift)))
    guard top.fileBytes > needed else { return }
    let file = top.source.file
    try converting { () throws(IOError) in try file.truncate(to: needed) }
    top.fileBytes = needed
  }

  /// Whether this file system can punch holes, tried where nothing is.
  static func canPunch(_ file: ImageFile, at end: UInt64) -> Bool {
    do {
      try file.punchHole(offset: end, length: UInt64(Geometry.pageBytes))
      return true
    } catch {
      return false
    }
  }

  /// One sector write: mark set and extension dropped, since nobody keeps it up to date from now
  /// on (format extension: while the disk is written it must not exist).
  private static func markInUse(_ top: ChainOpener.Level) throws(DeviceError) {
    guard var header = top.header else { return }
    try HashFile.remove(beside: top.source)
    header.markOpen()
    header.extensionSector = 0
    try write(header, to: top.source.file)
  }

  /// Writes the 64 bytes of a header, durably: they lie in one sector, so a crash leaves the old
  /// ones or the new ones.
  static func write(_ header: Header, to file: ImageFile) throws(DeviceError) {
    try converting { () throws(IOError) in
      try file.write(AlignedBuffer(header.encoded).region, at: 0)
      try file.sync()
    }
  }
}
