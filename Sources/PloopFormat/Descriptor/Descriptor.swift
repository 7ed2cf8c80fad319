/// What DiskDescriptor.xml says of a disk: its sizes, and the tree of its snapshots, each with one
/// image file. The tree is sound whenever there is a value of this type.
///
/// A *shot* is a state of the disk together with the delta that leads to it from its parent's state.
/// Exactly one shot is the top: it is written, nothing builds on it, and it is no snapshot. The chain
/// of a shot is its delta and those of its ancestors; branches are other shots of the same parent.
///
/// What a descriptor says beyond that (encryption, volumes, things of other programs) is kept as it
/// was read and written back.
package struct Descriptor: Equatable, Sendable {
  /// Shots, the top included: one more than an image has lower deltas.
  package static let shotLimit = 256
  package static let fileName = "DiskDescriptor.xml"
  package static let clusterSectorsRange: ClosedRange<UInt64> = 8...131_072

  package struct Shot: Equatable, Sendable {
    package internal(set) var guid: GUID
    /// ``GUID/none`` for the oldest.
    package internal(set) var parent: GUID
    /// The image as the descriptor names it: from the descriptor's folder, or from `/`.
    package internal(set) var file: String
    package internal(set) var mark: Mark?
    var imageExtras: [XMLElement] = []
    var shotExtras: [XMLElement] = []

    init(guid: GUID, parent: GUID, file: String, mark: Mark? = nil) {
      self.guid = guid
      self.parent = parent
      self.file = file
      self.mark = mark
    }
  }

  /// A restore point that is not to be used any more; its delta still belongs to the chains above.
  /// The raw values are the names of the elements.
  package enum Mark: String, Sendable, CaseIterable {
    /// Deleted, or being merged: OpenVZ's tools merge it away when only one shot builds on it.
    case temporary = "Temporary"
    /// Half of a merge in which base and top change places (libploop), before they have.
    case temporaryZero = "TemporaryZero"
    /// The same, after they have.
    case temporaryZeroSwap = "TemporaryZeroSwap"
  }

  enum Section: Hashable, CaseIterable {
    case root, diskParameters, storageData, storage, snapshots
  }

  /// In the order of the file, where a parent usually comes before its children.
  package internal(set) var shots: [Shot]
  package internal(set) var topGUID: GUID
  /// Sectors of 512 bytes. The header of the top has the last word: a grow that was interrupted
  /// leaves another size here.
  package internal(set) var sizeSectors: UInt64
  package let clusterSectors: UInt64
  /// Whether the oldest image is the disk's bytes as they are, without header.
  package internal(set) var isBaseRaw: Bool
  /// Both at least 1; nobody computes with them.
  var cylinders: UInt64
  var heads: UInt64
  /// Name and attributes of the root element.
  var root: XMLElement
  var extras: [Section: [XMLElement]] = [:]

  /// The descriptor of a new disk, which has one image.
  package init(new geometry: Geometry, file: String) {
    shots = [Shot(guid: .top, parent: .none, file: file)]
    topGUID = .top
    sizeSectors = geometry.sizeBytes / Geometry.sectorBytes
    clusterSectors = geometry.clusterSectors
    isBaseRaw = false
    (cylinders, heads) = Descriptor.diskGeometry(sectors: sizeSectors)
    root = XMLElement("Parallels_disk_image")
  }

  /// The descriptor of a chain that has had none: its deltas become snapshots with new names, the last
  /// one the top.
  ///
  /// - Parameters:
  ///   - files: as the descriptor is to name them, oldest first; at least one.
  ///   - isBaseRaw: whether the oldest has no header.
  /// - Throws: `descriptor-invalid` when a file is there twice, or there are too many.
  package init(
    chain files: [String], of geometry: Geometry, isBaseRaw: Bool
  ) throws(DescriptorError) {
    var shots: [Shot] = []
    for (level, file) in files.enumerated() {
      let isTop = level == files.count - 1
      shots.append(
        Shot(guid: isTop ? .top : .random(), parent: shots.last?.guid ?? .none, file: file))
    }
    self.shots = shots
    topGUID = .top
    sizeSectors = geometry.sizeBytes / Geometry.sectorBytes
    clusterSectors = geometry.clusterSectors
    self.isBaseRaw = isBaseRaw
    (cylinders, heads) = Descriptor.diskGeometry(sectors: sizeSectors)
    root = XMLElement("Parallels_disk_image")
    try checkTree()
  }

  /// - Throws: `descriptor-invalid` when the shots are no tree with the top as one of its leaves.
  init(
    root: XMLElement, sizeSectors: UInt64, clusterSectors: UInt64, shots: [Shot], topGUID: GUID,
    isBaseRaw: Bool
  ) throws(DescriptorError) {
    self.root = root
    self.sizeSectors = sizeSectors
    self.clusterSectors = clusterSectors
    self.shots = shots
    self.topGUID = topGUID
    self.isBaseRaw = isBaseRaw
    (cylinders, heads) = Descriptor.diskGeometry(sectors: sizeSectors)
    try checkTree()
  }

  /// As OpenVZ's tools compute them for most sizes: 16 heads, 32 sectors a track.
  private static func diskGeometry(sectors: UInt64) -> (cylinders: UInt64, heads: UInt64) {
    (max(1, sectors / 512), 16)
  }

  /// Holds the shots against what a tree is.
  private func checkTree() throws(DescriptorError) {
    func invalid(_ detail: String) -> DescriptorError { DescriptorError(.invalid, detail) }
    guard shots.count <= Descriptor.shotLimit else {
      throw invalid("\(shots.count) images; \(Descriptor.shotLimit) are the most")
    }
    var parents: [GUID: GUID] = [:]
    var files: Set<String> = []
    for shot in shots {
      guard shot.guid != .none else { throw invalid("a shot is called \(GUID.none)") }
      guard parents.updateValue(shot.parent, forKey: shot.guid) == nil else {
        throw invalid("two shots are called \(shot.guid)")
      }
      guard files.insert(shot.file).inserted else {
        throw invalid("two shots have the file \(shot.file)")
      }
    }
    let roots = shots.filter { $0.parent == .none }
    guard roots.count <= 1 else {
      throw invalid("\(roots[0].guid) and \(roots[1].guid) both have no parent")
    }
    for shot in shots where shot.parent != .none && parents[shot.parent] == nil {
      throw invalid("the parent \(shot.parent) of \(shot.guid) is not there")
    }
    // What no way from the root leads to lies on a circle, or behind one.
    let children = Dictionary(grouping: shots, by: \.parent)
    var reached: Set<GUID> = []
    var next = roots
    while let shot = next.popLast() {
      reached.insert(shot.guid)
      next += children[shot.guid] ?? []
    }
    if let shot = shots.first(where: { !reached.contains($0.guid) }) {
      throw invalid("\(shot.guid) has no way to a shot without parent: its ancestors are a circle")
    }
    guard parents[topGUID] != nil else { throw invalid("the top \(topGUID) is no shot") }
    guard topGUID == .top || parents[.top] == nil else {
      throw invalid("\(GUID.top) is a shot, but the top is \(topGUID)")
    }
    if let child = shots.first(where: { $0.parent == topGUID }) {
      throw invalid("\(child.guid) builds on the top \(topGUID), which is written")
    }
  }

  // MARK: The tree

  package func shot(_ guid: GUID) -> Shot? { shots.first { $0.guid == guid } }

  package func children(of guid: GUID) -> [Shot] { shots.filter { $0.parent == guid } }

  /// Whether the shot's image has no header.
  package func isRaw(_ shot: Shot) -> Bool { isBaseRaw && shot.parent == .none }

  /// The deltas that make up a state, oldest first; the last is the shot's own.
  ///
  /// - Parameter guid: a snapshot, or ``topGUID``.
  /// - Throws: `snapshot-not-found`.
  package func chain(to guid: GUID) throws(DescriptorError) -> [Shot] {
    var chain = [try existing(guid)]
    while let oldest = chain.last, let parent = shot(oldest.parent) { chain.append(parent) }
    return chain.reversed()
  }

  func existing(_ guid: GUID) throws(DescriptorError) -> Shot {
    guard let shot = shot(guid) else {
      throw DescriptorError(.snapshotNotFound, "there is no snapshot \(guid)")
    }
    return shot
  }
}
