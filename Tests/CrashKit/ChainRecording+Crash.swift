internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

extension ChainRecording {
  // MARK: After a crash

  static func open(_ folder: ImageFolder) throws -> Device {
    let file = DescriptorFile(in: folder)
    let descriptor = try ChainChange.settle(file).descriptor
    let device = try open(folder, descriptor.chain(to: descriptor.topGUID), readonly: false)
    _ = try ChainChange.completeResize(file, of: device)
    return device
  }

  private static func open(
    _ folder: ImageFolder, _ chain: [Descriptor.Shot], readonly: Bool
  ) throws -> Device {
    var options = AttachOptions.ofTests
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
  /// - Parameters:
  ///   - path: an empty folder for them.
  ///   - index, workers: this worker takes every so-manieth event.
  package func enumerate(
    path: String, _ bounds: Bounds, share index: Int = 0, of workers: Int = 1
  ) throws -> Enumeration.Result {
    var result = Enumeration.Result()
    let scratch = try ImageFolder(path: path, probe: SteadyFiles())
    for blockBytes in [4096, 512] {
      var random = SeededGenerator(seed: bounds.seed &+ UInt64(blockBytes) &+ UInt64(index) << 32)
      var states = FolderStates(folder, initial: initial, blockBytes: blockBytes)
      for (position, event) in watch.trace.events.enumerated() {
        states.apply(event, at: position)
        guard position % workers == index else { continue }
        for number in 0..<bounds.samples {
          result.states += 1
          let inOrder = number % 2 == 0
          let state = states.sample(inOrder: inOrder, using: &random)
          if let fault = check(
            state, at: position + 1, in: scratch, whileRunning: true, namesInOrder: inOrder)
          {
            result.bad.append(
              "position \(position) \(event.summary), blocks of \(blockBytes), seed \(bounds.seed): \(fault)"
            )
          }
        }
      }
    }
    return result
  }

  /// - Parameters:
  ///   - isRunning: whether the process was there until then, and has closed nothing on its way out.
  ///   - inOrder: whether names became durable in their order. Where they do not, a file may be left that
  ///     nobody names; everything else holds all the same.
  func check(
    _ state: [String: [UInt8]], at position: Int, in scratch: ImageFolder, mayLose: Bool = false,
    whileRunning isRunning: Bool, namesInOrder inOrder: Bool = true
  ) -> String? {
    do {
      for name in try scratch.names() { try scratch.unlink(name) }
      for (name, bytes) in state {
        let file = try scratch.create(name)
        try file.write(AlignedBuffer(bytes).region, at: 0)
        try file.truncate(to: UInt64(bytes.count))
      }
      if isRunning, let problem = try checkMark(at: position, in: scratch) { return problem }
      let device = try ChainRecording.open(scratch)
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
      if let fault = try checkTree(at: position, in: scratch, disk: values) { return fault }
      if inOrder, let fault = try checkLeft(at: position, in: scratch) { return fault }
      if let fault = try finishRestore(at: position, in: scratch) { return fault }
      return try finishMerge(at: position, in: scratch, namesInOrder: inOrder)
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

  /// While a disk is in use its top is marked so, and what is marked is not believed without repair.
  private func checkMark(at position: Int, in scratch: ImageFolder) throws -> String? {
    guard history.opening(at: position) == .attached else { return nil }
    let descriptor = try DescriptorFile(in: scratch).read()
    guard let top = descriptor.shot(descriptor.topGUID) else { return "no top" }
    let check = try ImageCheck(try scratch.open(top.file, writable: false))
    return check.isUnclean ? nil : "the top \(top.file) is not marked"
  }

  /// What was closed is clean, each delta of the chain.
  private func checkFiles(_ descriptor: Descriptor, in scratch: ImageFolder) throws -> String? {
    for shot in try descriptor.chain(to: descriptor.topGUID) {
      let check = try ImageCheck(try scratch.open(shot.file, writable: false))
      guard check.verdict == .clean else {
        return "\(shot.file) is \(check.verdict), with a tail of \(check.tailBytes) bytes"
      }
    }
    return nil
  }

  /// Every snapshot that has to be there is, and holds its state.
  private func checkTree(
    at position: Int, in scratch: ImageFolder, disk: [UInt64?]
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
      let old = try ChainRecording.open(
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
    if position < foreignFrom, let problem = try checkFiles(descriptor, in: scratch) {
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
  /// is what it was.
  private func finishMerge(
    at position: Int, in scratch: ImageFolder, namesInOrder inOrder: Bool
  ) throws -> String? {
    let file = DescriptorFile(in: scratch)
    let descriptor = try file.read()
    guard let marked = descriptor.shots.first(where: { $0.mark != nil }) else { return nil }
    let isLast = descriptor.children(of: marked.guid).contains { $0.guid == descriptor.topGUID }
    let direction: MergeDirection = isLast || position % 2 == 0 ? .forward : .backward
    let device = try ChainRecording.open(scratch)
    defer { try? device.detach(until: .after(seconds: 10)) }
    let before = try Recording.values(of: device)
    let change = ChainChange(of: file, device: "disk", helpers: helpers)
    let merge = try change.beginMerge(
      device, of: marked.guid, direction, chainTo: descriptor.topGUID, until: .after(seconds: 10))
    while try merge.step(limit: 8, on: engine) != nil {}
    try change.end(try change.finish(merge, of: marked.guid, until: .after(seconds: 10)))
    guard try Recording.values(of: device) == before else {
      return "made whole \(direction), the disk is another"
    }
    try device.detach(until: .after(seconds: 10))
    let again = try ChainRecording.open(scratch)
    defer { try? again.detach(until: .after(seconds: 10)) }
    guard try Recording.values(of: again) == before else {
      return "made whole \(direction) and attached, the disk is another"
    }
    try again.detach(until: .after(seconds: 10))
    return try checkTree(at: position, in: scratch, disk: before)
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
