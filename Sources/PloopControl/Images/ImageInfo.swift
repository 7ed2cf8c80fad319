package import PloopFormat

/// What lies beneath a root and is an image, or says which images are a disk.
package struct ImageInfo: Sendable {
  package enum Kind: String, Sendable {
    case image, descriptor
    /// Header and index of an image as they were before a repair.
    case savedIndex = "saved_index"
  }

  package enum State: String, Sendable, CaseIterable {
    case used, orphaned
    /// It cannot be told whether anybody needs it; such a file is never removed.
    case unknown
  }

  package struct User: Hashable, Sendable {
    /// `device`, `descriptor`, `export`, `job`, `target` or `image`.
    package var kind: String
    package var id: String
    /// The snapshot whose delta it is.
    package var snapshot: String?
    /// Whether it is written, or is what would be.
    package var isTop: Bool

    package init(kind: String, id: String, snapshot: String? = nil, isTop: Bool = false) {
      self.kind = kind
      self.id = id
      self.snapshot = snapshot
      self.isTop = isTop
    }
  }

  /// `root:relative`.
  package var path: String
  package var kind: Kind
  /// Of a raw base, which only those who use it can tell from any other file.
  package var isRaw = false
  package var version: ImageVersion?
  package var sizeBytes: UInt64?
  package var clusterBytes: UInt64?
  package var isUnclean: Bool?
  package var fileBytes: UInt64 = 0
  package var diskBytes: UInt64 = 0
  /// Seconds since 1970.
  package var modifiedAt: Double = 0
  package var state = State.unknown
  package var users: [User] = []
  /// Whether several disks need it.
  package var isShared = false
  /// Why it is orphaned, or why that is unknown.
  package var reason: String?
  /// What is wrong with it, by its code.
  package var problem: String?

  package init(path: String, kind: Kind) {
    self.path = path
    self.kind = kind
  }

  /// What nobody would miss if those who use it went.
  package var exclusiveBytes: UInt64 { isShared ? 0 : diskBytes }

  /// Whose room it takes: one of ``usages``.
  package var usage: String {
    if users.contains(where: { $0.kind == "target" }) { return "backup" }
    switch state {
    case .orphaned: return "orphan"
    case .unknown: return "unknown"
    case .used: return kind != .image || users.contains(where: \.isTop) ? "device" : "snapshot"
    }
  }

  package static let usages = ["device", "snapshot", "backup", "orphan", "unknown"]
}

/// What lies beneath the roots, and what it takes.
package struct ImageListing: Sendable {
  package var page: Page<ImageInfo>
  /// Of everything beneath the roots, not of the page alone: bytes on file systems by ``ImageInfo/usage``.
  package var diskBytes: [String: UInt64]
  /// Folders that could not be looked at.
  package var problems: [String]

  package init(page: Page<ImageInfo>, diskBytes: [String: UInt64], problems: [String]) {
    self.page = page
    self.diskBytes = diskBytes
    self.problems = problems
  }
}
