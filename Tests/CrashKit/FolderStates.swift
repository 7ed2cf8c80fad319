internal import PloopIO

/// Everything that a power failure can leave of a whole folder: which names mean which files, and
/// what is in each of them.
///
/// Names that were made, moved or removed since the folder's last sync may be seen as before or as
/// after, in the order in which it was done; each file's bytes as ``CrashStates`` has them.
struct FolderStates {
  private let folder: String
  private let blockBytes: Int
  /// By the number of their creation.
  private var files: [CrashStates]
  private var syncBegan: [Int: Int] = [:]
  /// Names after each change since the last sync of the folder; the first is durable.
  private var names: [[String: Int]]

  /// - Parameter initial: durable files by name.
  init(_ folder: ImageFolder, initial: [String: [UInt8]], blockBytes: Int) {
    self.folder = folder.path
    self.blockBytes = blockBytes
    let sorted = initial.sorted { $0.key < $1.key }
    files = sorted.map { CrashStates(initial: $0.value, blockBytes: blockBytes) }
    names = [Dictionary(uniqueKeysWithValues: sorted.enumerated().map { ($1.key, $0) })]
  }

  private func name(_ path: String) -> String { String(path.dropFirst(folder.count + 1)) }

  private mutating func change(_ body: (inout [String: Int]) -> Void) {
    var latest = names[names.count - 1]
    body(&latest)
    names.append(latest)
  }

  mutating func apply(_ event: IOTrace.Event, at position: Int) {
    switch event {
    case .create(let path):
      let number = files.count
      files.append(CrashStates(initial: [], blockBytes: blockBytes))
      let name = name(path)
      change { $0[name] = number }
    case .rename(let path, let other):
      let (old, new) = (name(path), name(other))
      change { names in names[new] = names.removeValue(forKey: old) }
    case .unlink(let path):
      let name = name(path)
      change { $0[name] = nil }
    case .folderSynced: names = [names[names.count - 1]]
    default:
      guard let path = event.path, let number = names[names.count - 1][name(path)] else { return }
      if case .syncStarted = event { syncBegan[number] = position }
      files[number].apply(event, at: position, syncBegan: syncBegan[number])
    }
  }

  /// One state, chosen at random: the content of each file by its name.
  func sample(using random: inout some RandomNumberGenerator) -> [String: [UInt8]] {
    let names = names[Int.random(in: 0..<names.count, using: &random)]
    return names.mapValues { files[$0].sample(using: &random) }
  }
}
