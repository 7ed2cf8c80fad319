internal import PloopDevice
internal import PloopIO

/// Which device uses which file, and as what. QEMU's locks keep other processes out; this keeps our
/// own devices from each other, and says who is in the way.
struct FileRegistry {
  /// Who has a file in its chain. What belongs to one device is never in its own way.
  enum User: Hashable {
    case device(String)
    /// One that reads a snapshot of a device.
    case export(String, of: String)
    /// The same.
    case job(String, of: String)

    var device: String {
      switch self {
      case .device(let id), .export(_, of: let id), .job(_, of: let id): id
      }
    }

    var holder: ServiceError.Holder {
      switch self {
      case .device(let id): ServiceError.Holder(kind: "device", id: id)
      case .export(let name, _): ServiceError.Holder(kind: "export", id: name)
      case .job(let id, _): ServiceError.Holder(kind: "job", id: id)
      }
    }
  }

  struct Use {
    let user: User
    /// The newest delta of its chain, and written by it.
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
    _ files: [(location: Roots.Location, identity: FileIdentity?)], for user: User,
    readonly: Bool, hasTop: Bool = true
  ) throws(ServiceError) {
    var claims: [(Key, Use)] = []
    for (level, file) in files.enumerated() {
      let isTop = hasTop && level == files.count - 1
      let use = Use(user: user, isWritten: isTop && !readonly, isLower: !isTop)
      let keys = [.name(file.location)] + (file.identity.map { [Key.file($0)] } ?? [])
      for key in keys {
        let others = (uses[key] ?? []).filter { $0.user.device != user.device }
        // That a chain builds on it is the stronger reason, and is said first.
        for other in others.filter(\.isLower) + others.filter({ !$0.isLower }) {
          try FileRegistry.check(use, against: other, path: file.location.path)
        }
        claims.append((key, use))
      }
    }
    for (key, use) in claims { uses[key, default: []].append(use) }
  }

  /// Another device, or an export of one, that has the file in its chain.
  func user(of file: Roots.Location, but device: String) -> User? {
    uses[.name(file)]?.first { $0.user.device != device }?.user
  }

  /// Everything that is in use.
  var claims: [(key: Key, use: Use)] { uses.flatMap { key, uses in uses.map { (key, $0) } } }

  /// Anybody who has it.
  func user(of file: Roots.Location) -> User? { uses[.name(file)]?.first?.user }

  func hasFiles(of device: String) -> Bool {
    uses.values.contains { uses in uses.contains { $0.user == .device(device) } }
  }

  mutating func release(_ user: User) { release { $0 == user } }

  /// What a device has, and what its exports have.
  mutating func releaseAll(of device: String) { release { $0.device == device } }

  private mutating func release(where isMeant: (User) -> Bool) {
    uses = uses.compactMapValues { uses in
      let rest = uses.filter { !isMeant($0.user) }
      return rest.isEmpty ? nil : rest
    }
  }

  private static func check(_ use: Use, against other: Use, path: String) throws(ServiceError) {
    let holder = other.user.holder
    if use.isWritten, other.isLower {
      throw ServiceError(
        .imageHasChildren, "\(path) is a lower delta of the \(holder.kind) \(holder.id)",
        cause: "writing it would change every disk that builds on it", errno: "EBUSY",
        holder: holder)
    }
    guard use.isWritten || other.isWritten else { return }
    throw ServiceError(
      .imageInUse, "\(path) is a part of the \(holder.kind) \(holder.id)", errno: "EBUSY",
      holder: holder)
  }
}
