internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

extension ChainRecording {
  // MARK: After a crash

  static func open(_ folder: ImageFolder) throws -> Device {
    let descriptor = try ChainChange.settle(DescriptorFile(in: folder)).descriptor
    return try open(folder, descriptor.chain(to: descriptor.topGUID), readonly: false)
  }

  private static func open(
    _ folder: ImageFolder, _ chain: [Descriptor.Shot], readonly: Bool
  ) throws -> Device {
    var options = AttachOptions()
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
    let scratch = try ImageFolder(path: path)
    for blockBytes in [4096, 512] {
      var random = SeededGenerator(seed: bounds.seed &+ UInt64(blockBytes) &+ UInt64(index) << 32)
      var states = FolderStates(folder, initial: initial, blockBytes: blockBytes)
      for (position, event) in watch.trace.events.enumerated() {
        states.apply(event, at: position)
        guard position % workers == index else { continue }
        for _ in 0..<bounds.samples {
          result.states += 1
          let state = states.sample(using: &random)
          if let fault = check(state, at: position + 1, in: scratch) {
            result.bad.append(
              "position \(position) \(event.summary), blocks of \(blockBytes), seed \(bounds.seed): \(fault)"
            )
          }
        }
      }
    }
    return result
  }

  private func check(
    _ state: [String: [UInt8]], at position: Int, in scratch: ImageFolder
  ) -> String? {
    do {
      for name in try scratch.names() { try scratch.unlink(name) }
      for (name, bytes) in state {
        let file = try scratch.create(name)
        try file.write(AlignedBuffer(bytes).region, at: 0)
        try file.truncate(to: UInt64(bytes.count))
      }
      let device = try ChainRecording.open(scratch)
      defer { try? device.detach(until: .after(seconds: 10)) }
      for (sector, value) in try Recording.values(of: device).enumerated() {
        let allowed = history.allowed(sector: sector, at: position)
        guard let value, allowed.contains(value) else {
          return "sector \(sector) reads \(value ?? 0), allowed are \(allowed)"
        }
      }
      try device.detach(until: .after(seconds: 10))
      return try checkTree(at: position, in: scratch)
    } catch {
      return "\(error)"
    }
  }

  /// Every snapshot that has to be there is, and holds its state; no file is left that nobody names.
  private func checkTree(at position: Int, in scratch: ImageFolder) throws -> String? {
    let descriptor = try DescriptorFile(in: scratch).read()
    for snapshot in frozen {
      guard descriptor.shot(snapshot.guid) != nil else {
        if snapshot.madeAt <= position, position < snapshot.goneFrom {
          return "the snapshot \(snapshot.guid) is gone"
        }
        continue
      }
      guard position < snapshot.spoiltFrom else { continue }
      let old = try ChainRecording.open(
        scratch, try descriptor.chain(to: snapshot.guid), readonly: true)
      defer { try? old.detach(until: .after(seconds: 10)) }
      guard try Recording.values(of: old) == snapshot.values else {
        return "the snapshot \(snapshot.guid) holds another state than it was made of"
      }
    }
    let known = Set(
      descriptor.shots.map(\.file) + ["DiskDescriptor.xml", "DiskDescriptor.xml.lck"] + foreign)
    let left = try scratch.names().filter { !known.contains($0) && !$0.contains(".index-backup") }
    return left.isEmpty ? nil : "left behind: \(left.sorted())"
  }

  // MARK: Faults

  /// How many calls the scenario makes.
  package static func calls(path: String) throws -> Int {
    let count = Locked(0)
    let recording = try ChainRecording(path: path)
    recording.watch.use { number, _ in
      count.withLock { $0 = number + 1 }
      return nil
    }
    try recording.runAll()
    return count.withLock { $0 }
  }

  /// Runs the scenario until a call fails, and then looks at what is there, as the next attach does.
  ///
  /// - Parameters:
  ///   - number: of the call that fails.
  ///   - isKill: all calls behind it fail as well: the process is gone.
  ///   - path: an empty folder.
  package static func run(failing number: Int, isKill: Bool, path: String) throws -> String? {
    let recording = try ChainRecording(path: path)
    recording.watch.use { call, _ in
      (isKill ? call >= number : call == number) ? .error(EIO) : nil
    }
    do { try recording.runAll() } catch {}
    let position = recording.position
    if !isKill { recording.watch.use(nil) }
    // Closed if it can be; what cannot be closed is left as a killed process leaves it.
    try? recording.device?.detach(until: .after(seconds: 10))
    recording.watch.use(nil)
    var state: [String: [UInt8]] = [:]
    for name in try recording.plain.names() {
      state[name] = try recording.plain.bytes(of: name, limit: 1 << 20)
    }
    let scratch = try ImageFolder(path: path).makeFolder(beneath: "after")
    return recording.check(state, at: position, in: scratch)
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
