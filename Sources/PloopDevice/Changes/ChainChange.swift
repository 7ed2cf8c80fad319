package import PloopFormat
package import PloopIO

/// The frame of every change of a chain that has a descriptor, whatever is changed.
///
/// The order (docs/crash-safety.md, "Changes of a chain"): what an earlier change left is settled; the
/// intent is durable; files are made and written; the descriptor is replaced, durably. Then the
/// caller writes down what it has to, and ends the change: what is needed no longer is removed, and
/// the intent with it.
///
/// Whoever uses it holds the descriptor's lock, and makes one change at a time.
package struct ChainChange: Sendable {
  /// A change that a crash no longer undoes, and that has not been ended.
  package struct Made: Sendable {
    package let descriptor: Descriptor
    /// Nanoseconds for which requests had to wait; 0 when nobody did.
    package let pauseNanoseconds: UInt64
    let intent: ChainIntent
    /// The closing of what a snapshot has made a lower delta, beside whatever follows.
    var closing: SideWork<Void, Never>?

    /// Waits until nothing of the change goes on any more.
    package func settleDown() { closing?.end() }
  }

  package let file: DescriptorFile
  /// The name of the disk, for people who read an intent.
  private let device: String
  private let request: ChainIntent.Request?
  let helpers: Helpers
  private let isOurs: @Sendable () -> Bool

  /// - Parameters:
  ///   - helpers: do what can be done at the same time.
  ///   - isOurs: whether the disk is still ours; asked once the intent can be seen by whoever gets it next.
  package init(
    of file: DescriptorFile, device: String, request: ChainIntent.Request? = nil,
    helpers: Helpers, isOurs: @escaping @Sendable () -> Bool = { true }
  ) {
    self.file = file
    self.device = device
    self.request = request
    self.helpers = helpers
    self.isOurs = isOurs
  }

  /// What there is once an earlier change has been ended.
  package struct Settled: Sendable {
    package let descriptor: Descriptor
    /// The intent of that change; the descriptor tells whether it was made.
    package let intent: ChainIntent?
    /// Files that nobody needs and that could not be removed.
    let left: [String]
  }

  /// Ends what an earlier change left, if anything, and reads the descriptor.
  package static func settle(_ file: DescriptorFile) throws(DeviceError) -> Settled {
    var descriptor = try file.read()
    let intents = IntentFile(beside: file)
    guard let intent = try intents.read() else {
      try intents.clear()
      // Of a change that has no intent, or of another program; nobody needs it.
      try file.abandon()
      return Settled(descriptor: descriptor, intent: nil, left: [])
    }
    // A killed process may have renamed it a moment ago: nothing is removed that a power failure
    // would still need.
    try converting { () throws(IOError) in try file.folder.sync() }
    if intent.operation == .flip, !intent.isMade(by: descriptor) {
      try undoFlip(intent, &descriptor, file)
    }
    let left = try intents.settle(intent, by: descriptor)
    return Settled(descriptor: descriptor, intent: intent, left: left)
  }

  /// Removes what the change has no use for any more, and returns when nothing of it goes on.
  package func end(_ made: Made) throws(DeviceError) {
    defer { made.settleDown() }
    _ = try IntentFile(beside: file).settle(made.intent, by: made.descriptor)
  }

  // MARK: Changes

  /// Begins to give a snapshot up: its delta and the one above it become one.
  ///
  /// Backward, the snapshot is marked as temporary, durably, before its file is written: whatever
  /// becomes of the merge, nobody goes back to it any more.
  ///
  /// - Parameters:
  ///   - guid: in the chain of the attached disk, and with one child.
  ///   - top: whose chain the disk is.
  ///   - direction: which of the two files receives, and so remains.
  ///   - removingFile: whether the other one is removed in the end; other disks may build on it.
  ///   - deadline: by when requests in flight have to end, where they have to.
  package func beginMerge(
    _ device: Device, of guid: GUID, _ direction: MergeDirection = .forward, chainTo top: GUID,
    removingFile: Bool = true, until deadline: Deadline
  ) throws(DeviceError) -> DeltaMerge {
    let before = try ChainChange.settle(file)
    let descriptor = before.descriptor
    let (gone, chain) = try describing { () throws(DescriptorError) in
      (try descriptor.merged(guid, direction).gone, try descriptor.chain(to: top))
    }
    guard let level = chain.firstIndex(where: { $0.guid == guid }) else {
      throw DeviceError(.nothingToMerge, "the snapshot \(guid) is not below the disk's top")
    }
    let intent = self.intent(.merge, guid, before, files: removingFile ? [gone] : [])
    return try making(intent) { () throws(DeviceError) in
      let merge = try DeltaMerge(of: device, level: level, direction)
      do throws(DeviceError) {
        if direction == .backward { try giveUp(guid, in: descriptor) }
        try merge.prepare(until: deadline)
      } catch {
        merge.abandon(until: deadline)
        throw error
      }
      return merge
    }
  }

  func giveUp(_ guid: GUID, in descriptor: Descriptor) throws(DeviceError) {
    guard descriptor.shot(guid)?.mark == nil else { return }
    var marked = descriptor
    try describing { () throws(DescriptorError) in try marked.mark(guid, as: .temporary) }
    try file.replace(with: marked)
  }

  /// Drops the merged delta from the chain (``DeltaMerge/finish(descriptor:becoming:until:)``).
  package func finish(
    _ merge: DeltaMerge, of guid: GUID, until deadline: Deadline
  ) throws(DeviceError) -> Made {
    let before = try file.read()
    let changed = try describing { () throws(DescriptorError) in
      try before.merged(guid, merge.direction).descriptor
    }
    let intent = try IntentFile(beside: file).read() ?? self.intent(.merge, guid, nil, files: [])
    let pause = try merge.finish(descriptor: file, becoming: changed, until: deadline)
    return Made(descriptor: changed, pauseNanoseconds: pause, intent: intent)
  }

  /// Ends a merge that is not to go on; the chain is as it was.
  package func abandon(_ merge: DeltaMerge, until deadline: Deadline) throws(DeviceError) {
    merge.abandon(until: deadline)
    _ = try ChainChange.settle(file)
  }

  /// Removes a snapshot that nothing builds on.
  package func removeLeaf(
    _ guid: GUID, removingFile: Bool = true
  ) throws(DeviceError) -> Made {
    let before = try ChainChange.settle(file)
    var changed = before.descriptor
    let gone = try describing { () throws(DescriptorError) in try changed.removeLeaf(guid) }
    return try replace(
      by: changed, intent(.delete, guid, before, files: removingFile ? [gone.file] : []))
  }

  /// Goes back to a snapshot; the disk is not attached.
  ///
  /// - Parameters:
  ///   - geometry: of the snapshot's delta.
  ///   - name: keeps the state so far as a snapshot; nil discards it.
  package func switchTop(
    to guid: GUID, geometry: Geometry, keepingTopAs name: GUID?
  ) throws(DeviceError) -> Made {
    let before = try ChainChange.settle(file)
    var changed = before.descriptor
    let top = changed.newFileName()
    let discarded = try describing { () throws(DescriptorError) in
      try changed.switchTop(to: guid, newTopFile: top, keepingTopAs: name)
    }
    // A snapshot from before a grow is a smaller disk.
    changed.resize(toSectors: geometry.sizeBytes / Geometry.sectorBytes)
    let old = before.descriptor.shot(before.descriptor.topGUID)?.file
    let files = [top] + (discarded.map { [$0.file] } ?? [])
    let intent = self.intent(
      .switchTop, guid, before,
      files: files + CheckpointMove.leftovers(beside: [top] + (old.map { [$0] } ?? [])))
    return try replace(by: changed, intent) { () throws(DeviceError) in
      try ImageCreator.create(in: file.folder, name: top, geometry: geometry)
      guard let old else { return }
      try CheckpointMove.spoil(
        from: old, to: top, in: file.folder, "the disk went back to the snapshot \(guid)")
    }
  }

  // MARK: Pieces

  func intent(
    _ operation: ChainIntent.Operation, _ guid: GUID, _ before: Settled?, files: [String]
  ) -> ChainIntent {
    // What an earlier change could not remove is tried again with this one.
    ChainIntent(
      operation, device: device, snapshot: guid, files: files + (before?.left ?? []),
      request: request)
  }

  private func begin(_ intent: ChainIntent) throws(DeviceError) {
    try IntentFile(beside: file).begin(intent)
    // Who has it by now sees the intent, or will not look at this descriptor any more (docs/fleet.md, "Taking over").
    guard isOurs() else {
      throw DeviceError(
        .detached, "the disk may be another node's by now: nothing of it is changed")
    }
  }

  /// Makes the intent durable and does what it says; it ends with an error if nothing is left of it.
  func making<Result>(
    _ intent: ChainIntent, _ body: () throws(DeviceError) -> Result,
    keepIf mustKeep: () -> Bool = { false }
  ) throws(DeviceError) -> Result {
    try begin(intent)
    do throws(DeviceError) { return try body() } catch {
      if !mustKeep() { _ = try? ChainChange.settle(file) }
      throw error
    }
  }

  /// Replaces the descriptor of a chain that nobody uses.
  func replace(
    by changed: Descriptor, _ intent: ChainIntent,
    _ prepare: () throws(DeviceError) -> Void = {}
  ) throws(DeviceError) -> Made {
    try begin(intent)
    do throws(DeviceError) {
      try prepare()
      try file.replace(with: changed)
    } catch {
      // It may be either. What is there decides, if it can be made durable; else the next attach does.
      _ = try? ChainChange.settle(file)
      throw error
    }
    return Made(descriptor: changed, pauseNanoseconds: 0, intent: intent)
  }

  func describing<Result>(
    _ body: () throws(DescriptorError) -> Result
  ) throws(DeviceError) -> Result {
    do throws(DescriptorError) { return try body() } catch {
      throw DeviceError(error, path: file.path)
    }
  }
}

extension Descriptor {
  /// What giving a snapshot up makes of it, and the file that is needed no longer then.
  fileprivate func merged(
    _ guid: GUID, _ direction: MergeDirection
  ) throws(DescriptorError) -> (descriptor: Descriptor, gone: String) {
    var changed = self
    switch direction {
    case .forward:
      let gone = try changed.mergeForward(guid).file
      return (changed, gone)
    case .backward:
      guard let child = children(of: guid).first else {
        throw DescriptorError(.notPossible, "nothing builds on \(guid)")
      }
      let gone = try changed.mergeIntoParent(child.guid)
      return (changed, gone)
    }
  }
}
