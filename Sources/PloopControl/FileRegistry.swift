internal import PloopDevice
internal import PloopIO

/// Which device uses which file, and as what. QEMU's locks keep other processes out; this keeps our
/// own devices from each other, and says who is in the way.
struct FileRegistry {
  struct Use {
    let device: String
    /// The newest delta of its device, and written by it.
    let isWritten: Bool
    let isLower: Bool
  }

  /// A file by what it is where it could be opened, and by name where it could not.
  enum Key: Hashable {
    case file(FileIdentity)
    case name(Roots.Location)
  }

  private var uses: [Key: [Use]] = [:]

  /// Notes the files of a chain, oldest first, or says who is in the way and notes none.
  ///
  /// - Parameter hasTop: whether the last of them is the chain's top.
  mutating func claim(
    _ files: [(location: Roots.Location, identity: FileIdentity?)], for device: String,
    readonly: Bool, hasTop: Bool = true
  ) throws(ServiceError) {
    var claims: [(Key, Use)] = []
    for (level, file) in files.enumerated() {
      let isTop = hasTop && level == files.count - 1
      let use = Use(device: device, isWritten: isTop && !readonly, isLower: !isTop)
      let keys = [.name(file.location)] + (file.identity.map { [Key.file($0)] } ?? [])
      for key in keys {
        let others = (uses[key] ?? []).filter { $0.device != device }
        // That a chain builds on it is the stronger reason, and is said first.
        for other in others.filter(\.isLower) + others.filter({ !$0.isLower }) {
          try FileRegistry.check(use, against: other, path: file.location.path)
        }
        claims.append((key, use))
      }
    }
    for (key, use) in claims { uses[key, default: []].append(use) }
  }

  /// Another device, if any, that has the file in its chain.
  func user(of file: Roots.Location, but device: String) -> String? {
    uses[.name(file)]?.first { $0.device != device }?.device
  }

  mutating func release(_ device: String) {
    uses = uses.compactMapValues { uses in
      let rest = uses.filter { $0.device != device }
      return rest.isEmpty ? nil : rest
    }
  }

  private static func check(_ use: Use, against other: Use, path: String) throws(ServiceError) {
    let holder = ServiceError.Holder(kind: "device", id: other.device)
    if use.isWritten, other.isLower {
      throw ServiceError(
        .imageHasChildren, "\(path) is a lower delta of the device \(other.device)",
        cause: "writing it would change every disk that builds on it", errno: "EBUSY",
        holder: holder)
    }
    guard use.isWritten || other.isWritten else { return }
    throw ServiceError(
      .imageInUse, "\(path) is attached as the device \(other.device)", errno: "EBUSY",
      holder: holder)
  }
}
