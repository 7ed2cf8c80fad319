internal import PloopBackup
internal import PloopIO

/// A chain of a target, and where it lies.
struct PlacedChain {
  let device: String
  let name: String
  let chain: BackupChain
}

/// Where a point is kept.
enum PointStore {
  case chain(PlacedChain)
  case single(any SinglePointTarget)

  /// The points that build on one, oldest first.
  func dependents(of id: String) throws(BackupError) -> [String] {
    switch self {
    case .chain(let placed): try placed.chain.dependents(of: id)
    case .single: []
    }
  }

  func remove(_ id: String) throws(BackupError) {
    switch self {
    case .chain(let placed): try placed.chain.remove(id)
    case .single(let target): try target.remove(id)
    }
  }

  /// What a restore reads, which hands out nothing that was not stored.
  func reader(_ id: String) throws(BackupError) -> any BackupSource {
    switch self {
    case .chain(let placed): try PointReader(id, of: placed.chain)
    case .single(let target): try target.reader(id)
    }
  }

  func check(_ id: String) throws(BackupError) -> PointCheck {
    switch self {
    case .chain(let placed): try PointCheck(id, of: placed.chain)
    case .single(let target): try target.check(id)
    }
  }

  /// What holds a point's clusters, in words.
  func name(of id: String) -> String {
    switch self {
    case .chain(let placed): "\(placed.device)/\(placed.name)/\(id)\(BackupNames.image)"
    case .single(let target): target.name
    }
  }
}
