internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

extension ChainRecording {
  // MARK: After a crash

  func open(_ folder: ImageFolder) throws -> Device {
    let file = DescriptorFile(in: folder)
    let descriptor = try ChainChange.settle(file).descriptor
    let device = try open(folder, descriptor.chain(to: descriptor.topGUID), readonly: false)
    _ = try ChainChange.completeResize(file, of: device)
    return device
  }

  private func open(
    _ folder: ImageFolder, _ chain: [Descriptor.Shot], readonly: Bool
  ) throws -> Device {
    var options = AttachOptions.ofTests
    options.bitmapsInImage = keepsBitmapsInImage
    options.readonly = readonly
    options.repairSafely = !readonly
    var sources: [DeltaSource] = []
    for shot in chain {
      let isWritten = shot.guid == chain.last?.guid && !readonly
      sources.append(
        DeltaSource(
          file: try folder.open(shot.file, writable: isWritten), folder: folder, name: shot.file))
    }
    return try Device.attach(sources, options)
  }

  /// Looks at states behind each event.
  ///
  /// - Parameter path: an empty folder for them.
  package func enumerate(
    path: String, _ bounds: Bounds, _ looks: Looks = Looks()
  ) throws -> Enumeration.Result {
    try FolderStates.enumerate(
      watch, in: folder, initial: initial, scratch: ImageFolder(path: path, probe: SteadyFiles()),
      bounds, looks
    ) { state, moment, scratch in
      check(
        state, at: moment.position, in: scratch, whileRunning: true,
        namesInOrder: moment.namesInOrder, moment.looks)
    }
  }

  /// - Parameters:
  ///   - isRunning: whether the process was there until then, and has closed nothing on its way out.
  ///   - inOrder: whether names became durable in their order. Where they do not, a file may be left that
  ///     nobody names; everything else holds all the same.
  func check(
    _ state: [String: [UInt8]], at position: Int, in scratch: ImageFolder, mayLose: Bool = false,
    whileRunning isRunning: Bool, namesInOrder inOrder: Bool = true, _ looks: Looks = Looks()
  ) -> String? {
    do {
      try FolderStates.lay(state, in: scratch)
      if isRunning, let problem = try checkMark(at: position, in: scratch) { return problem }
      let device = try open(scratch)
      defer { try? device.detach(until: .after(seconds: 10)) }
      let values = try Recording.values(of: device)
      for (sector, value) in values.enumerated() {
        let allowed = history.allowed(sector: sector, at: position)
        guard let value, allowed.contains(value) else {
          return "sector \(sector) reads \(value ?? 0), allowed are \(allowed)"
        }
      }
      if let fault = checkpointFault(device, values, at: position, mayLose: mayLose) {
        return fault
      }
      if let fault = try checkSize(of: device, at: position, in: scratch) { return fault }
      try device.detach(until: .after(seconds: 10))
      if let fault = try checkTree(at: position, in: scratch, disk: values, looks) {
        return fault
      }
      if inOrder, let fault = try checkLeft(at: position, in: scratch) { return fault }
      if let fault = try checkBitmaps(values, at: position, in: scratch) { return fault }
      if let fault = try finishRestore(at: position, in: scratch) { return fault }
      return try finishMerge(at: position, in: scratch, namesInOrder: inOrder, looks)
    } catch {
      return "\(error)"
    }
  }

  /// The disk is as large as its last answered growth has made it, or one that had begun; so says its
  /// descriptor.
  private func checkSize(
    of device: Device, at position: Int, in scratch: ImageFolder
  ) throws -> String? {
    let clusters = device.geometry.clusterCount
    let allowed = sizes.allowed(sector: 0, at: position).map { $0 == 0 ? firstClusters : $0 }
    guard allowed.contains(clusters) else {
      return "the disk has \(clusters) clusters, allowed are \(allowed)"
    }
    let sectors = try DescriptorFile(in: scratch).read().sizeSectors
    return sectors == device.geometry.sizeBytes / Geometry.sectorBytes
      ? nil : "the descriptor says \(sectors) sectors of \(clusters) clusters"
  }

  /// The image alone says of its checkpoints what the file beside it said.
  private func checkBitmaps(
    _ values: [UInt64?], at position: Int, in scratch: ImageFolder
  ) throws -> String? {
    let descriptor = try DescriptorFile(in: scratch).read()
    guard keepsBitmapsInImage, let top = descriptor.shot(descriptor.topGUID),
      scratch.contains("\(top.file).checkpoints")
    else { return nil }
    try scratch.unlink("\(top.file).checkpoints")
    let device = try open(scratch)
    defer { try? device.detach(until: .after(seconds: 10)) }
    // What said nothing is not in the image.
    let fault = checkpointFault(device, values, at: position, mayLose: true)
    try device.detach(until: .after(seconds: 10))
    return fault.map { "by the image alone, \($0)" }
  }

  /// While a disk is in use its top is marked so, and what is marked is not believed without repair.
  private func checkMark(at position: Int, in scratch: ImageFolder) throws -> String? {
    guard history.opening(at: position) == .attached else { return nil }
    let descriptor = try DescriptorFile(in: scratch).read()
    guard let top = descriptor.shot(descriptor.topGUID) else { return "no top" }
    let check = try ImageCheck(try scratch.open(top.file, writable: false))
    return check.isUnclean ? nil : "the top \(top.file) is not marked"
  }

  /// What was closed is clean, each delta of the chain; nobody else's index has an entry that cannot be followed.
  private func checkFiles(
    _ descriptor: Descriptor, in scratch: ImageFolder, _ looks: Looks
  ) throws -> String? {
    let chain = Set(try descriptor.chain(to: descriptor.topGUID).map(\.file))
    for shot in descriptor.shots {
      let check = try ImageCheck(try scratch.open(shot.file, writable: false))
      guard check.verdict == .clean else {
        guard chain.contains(shot.file) || check.verdict == .corrupt else { continue }
        return "\(shot.file) is \(check.verdict), with a tail of \(check.tailBytes) bytes"
      }
      if let fault = try looks.judge(shot.file, in: scratch) { return fault }
    }
    return nil
  }

  /// Every snapshot that has to be there is, and holds its state.
  private func checkTree(
    at position: Int, in scratch: ImageFolder, disk: [UInt64?], _ looks: Looks
  ) throws -> String? {
    let descriptor = try DescriptorFile(in: scratch).read()
    for snapshot in frozen {
      guard descriptor.shot(snapshot.guid) != nil else {
        if snapshot.madeAt <= position, position < snapshot.goneFrom {
          return "the snapshot \(snapshot.guid) is gone"
        }
        continue
      }
      if descriptor.shot(snapshot.guid)?.mark != nil {
        if position < snapshot.goneFrom { return "\(snapshot.guid) is marked too early" }
        continue
      }
      guard position < snapshot.spoiltFrom else { continue }
      let old = try open(
        scratch, try descriptor.chain(to: snapshot.guid), readonly: true)
      defer { try? old.detach(until: .after(seconds: 10)) }
      let values = try Recording.values(of: old)
      guard
        values == Array(snapshot.values.prefix(values.count))
          || snapshot.isLive && position < snapshot.madeAt && values == disk
      else {
        return "the snapshot \(snapshot.guid) holds another state than it was made of"
      }
    }
    if position < foreignFrom, let problem = try checkFiles(descriptor, in: scratch, looks) {
      return problem
    }
    return try checkNotes(at: position, in: scratch, descriptor)
  }

  /// No file is left that nobody names.
  private func checkLeft(at position: Int, in scratch: ImageFolder) throws -> String? {
    let descriptor = try DescriptorFile(in: scratch).read()
    let top = descriptor.shot(descriptor.topGUID)?.file ?? ""
    let known = Set(
      descriptor.shots.map(\.file) + [
        "DiskDescriptor.xml", "DiskDescriptor.xml.lck", Self.notesName, "\(Self.notesName).tmp",
        "\(top).checkpoints",
      ] + foreign + restores.filter { $0.isGoingOn(at: position) }.flatMap(\.files))
    let left = try scratch.names().filter { !known.contains($0) && !$0.contains(".index-backup") }
    return left.isEmpty ? nil : "left behind: \(left.sorted())"
  }

  /// No snapshot is there without its note; others may have been written since.
  private func checkNotes(
    at position: Int, in scratch: ImageFolder, _ descriptor: Descriptor
  ) throws -> String? {
    guard let last = notes.lastIndex(where: { descriptor.shot($0.guid) != nil }) else { return nil }
    let found = try scratch.bytes(of: Self.notesName, limit: 1 << 20)
    return notes[last...].contains { $0.bytes == found }
      ? nil : "the notes know nothing of \(notes[last].guid)"
  }

  /// A merge that the crash has cut short is made whole, in the one direction or the other, and the disk
  /// is what it was. Where somebody has gone back to an older snapshot since, nothing builds on the marked
  /// one any more, and it is dropped, as the job does.
  private func finishMerge(
    at position: Int, in scratch: ImageFolder, namesInOrder inOrder: Bool, _ looks: Looks
  ) throws -> String? {
    let file = DescriptorFile(in: scratch)
    let descriptor = try file.read()
    guard let marked = descriptor.shots.first(where: { $0.mark != nil }) else { return nil }
    let children = descriptor.children(of: marked.guid)
    let isLast = children.contains { $0.guid == descriptor.topGUID }
    let direction: MergeDirection = isLast || position % 2 == 0 ? .forward : .backward
    let device = try open(scratch)
    defer { try? device.detach(until: .after(seconds: 10)) }
    let before = try Recording.values(of: device)
    let change = ChainChange(of: file, device: "disk", helpers: helpers)
    if children.isEmpty {
      try change.end(try change.removeLeaf(marked.guid))
    } else {
      let merge = try change.beginMerge(
        device, of: marked.guid, direction, chainTo: descriptor.topGUID, until: .after(seconds: 10))
      while try merge.step(limit: 8, on: engine) != nil {}
      try change.end(try change.finish(merge, of: marked.guid, until: .after(seconds: 10)))
    }
    guard try Recording.values(of: device) == before else {
      return "made whole \(direction), the disk is another"
    }
    try device.detach(until: .after(seconds: 10))
    let again = try open(scratch)
    defer { try? again.detach(until: .after(seconds: 10)) }
    guard try Recording.values(of: again) == before else {
      return "made whole \(direction) and attached, the disk is another"
    }
    try again.detach(until: .after(seconds: 10))
    return try checkTree(at: position, in: scratch, disk: before, looks)
      ?? (inOrder ? checkLeft(at: position, in: scratch) : nil)
  }
}

extension IOTrace.Event {
  /// Without the bytes.
  var summary: String {
    if case .write(let path, let offset, let bytes) = self {
      return "write(\(path), \(offset), \(bytes.count) bytes)"
    }
    return "\(self)"
  }
}
