package import PloopIO

/// Everything that a power failure can leave of a whole folder: which names mean which files, and
/// what is in each of them.
///
/// Names that were made, moved or removed since the folder's last sync may be seen as before or as
/// after, in the order in which it was done, or on some file systems in any; each file's bytes as
/// ``CrashStates`` has them.
package struct FolderStates {
  private let folder: String
  private let blockBytes: Int
  /// By the number of their creation.
  private var files: [CrashStates]
  private var syncBegan: [Int: Int] = [:]
  /// As of the last sync of the folder.
  private var durableNames: [String: Int]
  /// What was changed since.
  private var changes: [NameChange] = []

  /// A name means another file, or none, and another one may mean nothing any more.
  private struct NameChange {
    let name: String
    let file: Int?
    var gone: String?

    func perform(on names: inout [String: Int]) {
      if let gone { names[gone] = nil }
      names[name] = file
    }
  }

  /// - Parameter initial: durable files by name.
  package init(_ folder: ImageFolder, initial: [String: [UInt8]], blockBytes: Int) {
    self.folder = folder.path
    self.blockBytes = blockBytes
    let sorted = initial.sorted { $0.key < $1.key }
    files = sorted.map { CrashStates(initial: $0.value, blockBytes: blockBytes) }
    durableNames = Dictionary(uniqueKeysWithValues: sorted.enumerated().map { ($1.key, $0) })
  }

  private func name(_ path: String) -> String { String(path.dropFirst(folder.count + 1)) }

  private var names: [String: Int] { names { _ in true } }

  /// With some of the changes, in their order.
  private func names(_ isDone: (Int) -> Bool) -> [String: Int] {
    var names = durableNames
    for (number, change) in changes.enumerated() where isDone(number) {
      change.perform(on: &names)
    }
    return names
  }

  package mutating func apply(_ event: IOTrace.Event, at position: Int) {
    switch event {
    case .create(let path):
      let number = files.count
      files.append(CrashStates(initial: [], blockBytes: blockBytes))
      changes.append(NameChange(name: name(path), file: number))
    case .rename(let path, let other):
      let old = name(path)
      changes.append(NameChange(name: name(other), file: names[old], gone: old))
    case .unlink(let path):
      changes.append(NameChange(name: name(path), file: nil))
    case .folderSynced:
      durableNames = names
      changes = []
    default:
      guard let path = event.path, let number = names[name(path)] else { return }
      if case .syncStarted = event { syncBegan[number] = position }
      files[number].apply(event, at: position, syncBegan: syncBegan[number])
    }
  }

  /// Has a folder hold a state and nothing else.
  package static func lay(_ state: [String: [UInt8]], in folder: ImageFolder) throws {
    for name in try folder.names() { try folder.unlink(name) }
    for (name, bytes) in state {
      let file = try folder.create(name)
      try file.write(AlignedBuffer(bytes).region, at: 0)
      try file.truncate(to: UInt64(bytes.count))
    }
  }

  /// One state, chosen at random: the content of each file by its name.
  ///
  /// - Parameter inOrder: whether names become durable in the order in which they were changed.
  package func sample(
    inOrder: Bool, using random: inout some RandomNumberGenerator
  ) -> [String: [UInt8]] {
    let count = Int.random(in: 0...changes.count, using: &random)
    let chosen = (inOrder ? Array(changes.indices) : changes.indices.shuffled(using: &random))
      .prefix(count)
    let names = names(Set(chosen).contains)
    return names.mapValues { files[$0].sample(using: &random) }
  }
  /// What the folder holds where nothing is lost.
  package var latest: [String: [UInt8]] { names.mapValues { files[$0].latest } }
}
