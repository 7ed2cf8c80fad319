// What the operations on a chain make of its descriptor: values only, no file is touched. Each says
// which file is no longer named afterwards; it may be removed once the new descriptor is durable.
// The names that survive are those that OpenVZ's tools let survive, so that both may take turns.

extension Descriptor {
  /// A snapshot: the state so far gets a name and keeps its file, and an empty delta above it
  /// becomes the top.
  ///
  /// - Parameters:
  ///   - guid: the snapshot's name; neither taken nor reserved.
  ///   - file: of the new top; see ``newFileName(_:)``.
  /// - Throws: `snapshot-exists`, `too-many-deltas`, `snapshot-not-possible`.
  package mutating func addSnapshot(_ guid: GUID, newTopFile file: String) throws(DescriptorError) {
    try requireNew(guid)
    try requireNew(file: file)
    try requireRoom()
    rename(topGUID, to: guid)
    addTop(parent: guid, file: file)
  }

  /// Back to a snapshot: an empty delta above it becomes the top. Other branches stay.
  ///
  /// - Parameters:
  ///   - guid: the snapshot; not one that is marked, since what it holds may be half merged.
  ///   - file: of the new top.
  ///   - name: the state so far stays as a snapshot of this name, a leaf; nil discards it.
  /// - Returns: the shot that was discarded.
  /// - Throws: `snapshot-not-found`, `snapshot-not-possible`, and as ``addSnapshot(_:newTopFile:)``.
  package mutating func switchTop(
    to guid: GUID, newTopFile file: String, keepingTopAs name: GUID?
  ) throws(DescriptorError) -> Shot? {
    let target = try existing(guid)
    guard guid != topGUID, target.mark == nil else {
      throw DescriptorError(
        .notPossible, "\(guid) is \(guid == topGUID ? "the top" : "marked as temporary")")
    }
    try requireNew(file: file)
    if let name {
      try requireNew(name)
      try requireRoom()
      rename(topGUID, to: name)
      addTop(parent: guid, file: file)
      return nil
    }
    let discarded = try existing(topGUID)
    remove(topGUID)
    addTop(parent: guid, file: file)
    return discarded
  }

  /// Merges a snapshot forward: what only its delta holds has gone into its child's file, which
  /// keeps its name; the snapshot's own file is no longer needed.
  ///
  /// - Returns: the shot that is gone, with its file.
  /// - Throws: `snapshot-not-found`; `snapshot-has-branches` unless exactly one shot builds on it;
  ///   `snapshot-not-possible` for a leaf.
  package mutating func mergeForward(_ guid: GUID) throws(DescriptorError) -> Shot {
    let source = try existing(guid)
    let child = try onlyChild(of: guid)
    // The oldest delta is now the child's, and that has a header.
    if source.parent == .none { isBaseRaw = false }
    update(child.guid) { $0.parent = source.parent }
    remove(guid)
    return source
  }

  /// Merges a shot backward: what its delta holds has gone into its parent's file. The shot keeps
  /// its own name, and its parent's is gone, since the file no longer holds that state.
  ///
  /// Mark the parent (``mark(_:as:)``) durably before its file is written.
  ///
  /// - Parameter guid: a snapshot or the top.
  /// - Returns: the file that is no longer needed.
  /// - Throws: `snapshot-not-found`; `snapshot-has-branches` when other shots build on the parent;
  ///   `snapshot-not-possible` for the oldest.
  package mutating func mergeIntoParent(_ guid: GUID) throws(DescriptorError) -> String {
    let merged = try existing(guid)
    guard let parent = shot(merged.parent) else {
      throw DescriptorError(.notPossible, "\(guid) is the oldest; nothing lies below it")
    }
    _ = try onlyChild(of: parent.guid)
    remove(guid)
    update(parent.guid) { survivor in
      survivor.guid = guid
      survivor.mark = merged.mark
      survivor.shotExtras = merged.shotExtras
    }
    for child in children(of: guid) where child.guid != guid {
      update(child.guid) { $0.parent = guid }
    }
    return merged.file
  }

  /// Removes a snapshot that nothing builds on.
  ///
  /// - Returns: the shot that is gone, with its file.
  /// - Throws: `snapshot-not-found`; `snapshot-has-branches` when something builds on it;
  ///   `snapshot-not-possible` for the top.
  package mutating func removeLeaf(_ guid: GUID) throws(DescriptorError) -> Shot {
    let leaf = try existing(guid)
    guard guid != topGUID else { throw DescriptorError(.notPossible, "\(guid) is the top") }
    guard children(of: guid).isEmpty else {
      throw DescriptorError(.hasBranches, "\(guid) is not the end of a branch")
    }
    remove(guid)
    return leaf
  }

  /// Removes the top: the snapshot it builds on becomes the top, and its name is gone.
  ///
  /// - Returns: the shot that is gone, with its file.
  /// - Throws: `snapshot-has-branches` when other shots build on that snapshot; `snapshot-not-possible`
  ///   for a top with nothing beneath, and where that is marked, or raw.
  package mutating func removeTop() throws(DescriptorError) -> Shot {
    let top = try existing(topGUID)
    guard let below = shot(top.parent), below.mark == nil, !isRaw(below) else {
      throw DescriptorError(.notPossible, "nothing lies below the top that could be the top")
    }
    _ = try onlyChild(of: below.guid)
    remove(topGUID)
    topGUID = .top
    rename(below.guid, to: .top)
    return top
  }

  /// A snapshot's image lies in another file, with the same content.
  ///
  /// - Throws: `snapshot-not-found`, or `snapshot-not-possible` when another shot has the file.
  package mutating func replaceFile(of guid: GUID, by file: String) throws(DescriptorError) {
    guard try existing(guid).file != file else { return }
    try requireNew(file: file)
    update(guid) { $0.file = file }
  }

  /// The top and the snapshot it builds on change files. No file holds the snapshot's state then: mark
  /// it (``mark(_:as:)``) before.
  ///
  /// - Throws: `snapshot-has-branches` when other shots build on it; `snapshot-not-possible` for a top
  ///   with nothing beneath, and for a raw snapshot, which can be nobody's top.
  package mutating func flipTop() throws(DescriptorError) {
    let top = try existing(topGUID)
    guard let below = shot(top.parent) else {
      throw DescriptorError(.notPossible, "nothing lies below the top")
    }
    _ = try onlyChild(of: below.guid)
    guard !isRaw(below) else {
      throw DescriptorError(.notPossible, "\(below.guid) is raw, and can only be the oldest")
    }
    update(topGUID) { $0.file = below.file }
    update(below.guid) { $0.file = top.file }
  }

  /// Takes a snapshot out of use, or (nil) gives it back.
  ///
  /// - Throws: `snapshot-not-found`, or `snapshot-not-possible` for the top.
  package mutating func mark(_ guid: GUID, as mark: Mark?) throws(DescriptorError) {
    _ = try existing(guid)
    guard guid != topGUID || mark == nil else {
      throw DescriptorError(.notPossible, "\(guid) is the top, which is in use")
    }
    update(guid) { $0.mark = mark }
  }

  /// The top has another size than before.
  ///
  /// - Parameter sectors: of 512 bytes.
  package mutating func resize(toSectors sectors: UInt64) {
    sizeSectors = sectors
  }

  /// The name of a new delta's file, as OpenVZ's tools make it: that of the oldest image, and a
  /// GUID of the file's own.
  package func newFileName(_ guid: GUID = .random()) -> String {
    var name = shots.first?.file.split(separator: "/").last.map(String.init) ?? "root.hds"
    if let dot = name.lastIndex(of: "."), GUID(name[name.index(after: dot)...]) != nil {
      name = String(name[..<dot])
    }
    return "\(name).\(guid)"
  }

  // MARK: Rules

  private func requireNew(_ guid: GUID) throws(DescriptorError) {
    guard !guid.isReserved else {
      throw DescriptorError(.notPossible, "\(guid) has a meaning of its own")
    }
    guard shot(guid) == nil else {
      throw DescriptorError(.snapshotExists, "there is a snapshot \(guid)")
    }
  }

  private func requireNew(file: String) throws(DescriptorError) {
    guard !shots.contains(where: { $0.file == file }) else {
      throw DescriptorError(.notPossible, "the file \(file) belongs to a snapshot")
    }
  }

  private func requireRoom() throws(DescriptorError) {
    guard shots.count < Descriptor.shotLimit else {
      throw DescriptorError(
        .tooManyShots, "there are \(shots.count - 1) snapshots; that is the limit")
    }
  }

  private func onlyChild(of guid: GUID) throws(DescriptorError) -> Shot {
    let children = children(of: guid)
    guard let child = children.first else {
      throw DescriptorError(.notPossible, "nothing builds on \(guid)")
    }
    guard children.count == 1 else {
      throw DescriptorError(
        .hasBranches,
        "\(children.count) shots build on \(guid): "
          + children.map(\.guid.description).joined(separator: ", "))
    }
    return child
  }

  // MARK: Pieces

  /// A descriptor that we change has the name for its top that OpenVZ's tools expect.
  private mutating func addTop(parent: GUID, file: String) {
    topGUID = .top
    shots.append(Shot(guid: .top, parent: parent, file: file))
  }

  private mutating func remove(_ guid: GUID) { shots.removeAll { $0.guid == guid } }

  private mutating func update(_ guid: GUID, _ change: (inout Shot) -> Void) {
    for index in shots.indices where shots[index].guid == guid { change(&shots[index]) }
  }

  private mutating func rename(_ guid: GUID, to name: GUID) {
    for index in shots.indices {
      if shots[index].guid == guid { shots[index].guid = name }
      if shots[index].parent == guid { shots[index].parent = name }
    }
  }
}
