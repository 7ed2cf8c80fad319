internal import PloopFormat
package import PloopIO

/// Carries out a plan for images that nobody has open (docs/crash-safety.md, "Forced repair").
package enum ForcedRepair {
  /// Repairs the images that the plan names, each durably, the oldest first, and then safely.
  ///
  /// - Parameters:
  ///   - sources: oldest first, opened for writing.
  ///   - digest: of the plan that was seen.
  ///   - locks: of OpenVZ's tools, where the caller has taken them.
  /// - Returns: what was done, in words.
  /// - Throws: `.otherPlan` with nothing changed when the images are not what they were then; `.locked`;
  ///   `.outOfSpace`, with the file as long as it was, and `.io`.
  package static func run(
    _ sources: [DeltaSource], plan digest: String, holding locks: [DescriptorLock]? = nil
  ) throws(DeviceError) -> [String] {
    var isDone = false
    defer { if !isDone { sources.forEach { ImageLock.release($0.file) } } }
    let locks = try lock(sources, holding: locks)
    try converting { () throws(IOError) in
      for source in sources {
        // What is looked at has to be what a crash leaves.
        try source.file.sync()
        source.file.dropFromPageCache()
      }
    }
    let plan = try RepairPlan(of: sources)
    guard plan.digest == digest else {
      throw DeviceError(.otherPlan, "the images are not those of the plan \(digest.prefix(80))")
    }
    var done: [String] = []
    for (source, image) in zip(sources, plan.images) {
      guard let image, image.isNeeded else { continue }
      done += try mend(source, image)
      done += try ImageRepair.run(source, holding: locks)
    }
    isDone = true
    sources.forEach { ImageLock.release($0.file) }
    return done
  }

  private static func lock(
    _ sources: [DeltaSource], holding locks: [DescriptorLock]?
  ) throws(DeviceError) -> [DescriptorLock] {
    do throws(LockError) {
      for source in sources { try ImageLock.acquire(source.file, for: .write) }
      if let locks { return locks }
      guard let top = sources.last else { return [] }
      return try DescriptorLock.acquire(in: top.folder, exclusive: true).map { [$0] } ?? []
    } catch { throw DeviceError(error) }
  }

  // MARK: One image

  private static func mend(
    _ source: DeltaSource, _ plan: RepairPlan.Image
  ) throws(DeviceError) -> [String] {
    let file = source.file
    let backup = plan.backupName(of: source.name)
    // 1 what no entry leads to is kept, and the old index.
    let lost = plan.lostName(of: source.name)
    if let lost { try LostClusters(lost, in: source.folder).save(file, plan) }
    try SavedIndex(backup, in: source.folder).save(file, bytes: plan.geometry.headerBytes)
    let header = try Device.header(of: file)
    let bytes = try converting { () throws(IOError) in try file.size() }
    let entries: [(cluster: UInt64, entry: UInt32)]
    do throws(DeviceError) {
      // 2 the mark; 3 whole clusters and copies, stable before any entry names them.
      var marked = header
      marked.markOpen()
      try Device.write(marked, to: file)
      entries = try place(plan, in: file)
    } catch {
      // No entry has changed: the image becomes what it was.
      try? file.truncate(to: bytes)
      try? Device.write(header, to: file)
      throw error
    }
    // 4 the entries.
    try converting { () throws(IOError) in
      let word = AlignedBuffer(count: 4).region
      for (cluster, entry) in entries {
        word.setLittleEndian(entry, at: 0)
        try file.write(word, at: IndexFault.offset(of: cluster))
      }
      try file.sync()
    }
    return ["\(file.path): saved header and index as \(backup)"]
      + (lost.map { ["\(file.path): saved what no entry leads to as \($0)"] } ?? [])
      + plan.steps.map { "\(file.path): \($0.words)" }
  }

  /// - Returns: what the entries become.
  private static func place(
    _ plan: RepairPlan.Image, in file: ImageFile
  ) throws(DeviceError) -> [(cluster: UInt64, entry: UInt32)] {
    let geometry = plan.geometry
    var entries: [(cluster: UInt64, entry: UInt32)] = []
    // Behind everything that there is: what nothing references may be what a wrong entry has lost.
    var next = plan.fileClusters
    if plan.steps.contains(where: { $0.action != .drop }) {
      try converting { () throws(IOError) in
        try file.truncate(to: next << UInt64(geometry.clusterShift))
      }
    }
    let buffer = AlignedBuffer(count: Int(min(geometry.clusterBytes, Device.copyBytes)))
    for step in plan.steps {
      switch step.action {
      case .extend: break
      case .drop: entries.append((step.cluster, 0))
      case .copy:
        guard next <= geometry.physicalLimit,
          case .success(let shared) = geometry.physical(
            of: step.entry, cluster: step.cluster, fileClusters: plan.fileClusters)
        else {
          throw DeviceError(.imageFull, "\(file.path): no entry can name what lies behind its end")
        }
        let content = MergeContent(
          file: file, offset: shared << UInt64(geometry.clusterShift), count: geometry.clusterBytes)
        try content.copy(
          to: file, at: next << UInt64(geometry.clusterShift), buffer,
          sharing: SharingBounds())
        entries.append((step.cluster, geometry.entry(of: next)))
        next += 1
      }
    }
    try converting { () throws(IOError) in try file.sync() }
    return entries
  }
}

/// What lies in an image and is not referenced, in a sparse file of its own: each cluster at its place.
private struct LostClusters {
  private let name: String
  private let folder: ImageFolder

  init(_ name: String, in folder: ImageFolder) {
    self.name = name
    self.folder = folder
  }

  /// Copies it, durably; clusters that read as zero are left out.
  func save(_ image: ImageFile, _ plan: RepairPlan.Image) throws(DeviceError) {
    let temporary = "\(name).tmp"
    try converting { () throws(IOError) in try folder.removeIfThere(temporary) }
    do throws(DeviceError) {
      let bytes = try converting { () throws(IOError) in try image.size() }
      let copy = try converting { () throws(IOError) in
        let copy = try folder.create(temporary)
        try copy.truncate(to: bytes)
        return copy
      }
      let clusterBytes = plan.geometry.clusterBytes
      let buffer = AlignedBuffer(count: Int(min(clusterBytes, Device.copyBytes)))
      var place: UInt64 = 0
      // A tail may be long and without a byte in it.
      while let data = image.nextData(from: place), data < bytes {
        let cluster = data / clusterBytes
        place = (cluster + 1) * clusterBytes
        guard cluster >= plan.used.count || !plan.used[Int(cluster)] else { continue }
        let content = MergeContent(
          file: image, offset: cluster * clusterBytes,
          count: min(clusterBytes, bytes - cluster * clusterBytes))
        guard try !content.isZero(buffer) else { continue }
        try content.copy(to: copy, at: content.offset, buffer, sharing: SharingBounds())
      }
      try converting { () throws(IOError) in
        try copy.sync()
        try folder.rename(temporary, to: name)
        try folder.sync()
      }
    } catch {
      // Half a copy is in the way of those who need the room.
      try? folder.unlink(temporary)
      throw error
    }
  }
}

extension RepairPlan.Step {
  /// For people.
  package var words: String {
    switch action {
    case .drop: "cluster \(cluster): entry \(entry) taken out"
    case .copy: "cluster \(cluster): a copy of the place \(entry), which another cluster has too"
    case .extend: "cluster \(cluster): the rest of its place is zeroes"
    }
  }
}
