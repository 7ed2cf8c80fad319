package import PloopIO

/// Everything that a power failure can leave of a whole folder, with the folders in it: which names mean which
/// files, and what is in each of them.
///
/// Names that were made, moved or removed since their folder's last sync may be seen as before or as
/// after, in the order in which it was done, or on some file systems in any; each file's bytes as
/// ``CrashStates`` has them. Of each folder for itself: a sync of one says nothing of another.
package struct FolderStates {
  private let folder: String
  private let blockBytes: Int
  /// By the number of their creation.
  private var files: [CrashStates]
  private var syncs: [Int: SyncStarts] = [:]
  private var folderSyncs: [String: SyncStarts] = [:]
  /// As of the last sync of their folders.
  private var durableNames: [String: Entry]
  /// What was changed since.
  private var changes: [NameChange] = []
  /// Folders that were made.
  private var made: Set<String> = []

  private enum Entry {
    case file(Int)
    case folder
  }

  /// A name means another file, or none, and another one may mean nothing any more.
  private struct NameChange {
    let position: Int
    let name: String
    let entry: Entry?
    var gone: String?

    var folder: String { FolderStates.folder(of: name) }

    func perform(on names: inout [String: Entry]) {
      if let gone { names[gone] = nil }
      names[name] = entry
    }
  }

  /// - Parameter initial: durable files by name.
  package init(_ folder: ImageFolder, initial: [String: [UInt8]], blockBytes: Int) {
    self.init(beneath: folder.path, initial: initial, blockBytes: blockBytes)
  }

  /// - Parameter folder: what every path of the trace begins with.
  package init(beneath folder: String, initial: [String: [UInt8]] = [:], blockBytes: Int) {
    self.folder = folder
    self.blockBytes = blockBytes
    let sorted = initial.sorted { $0.key < $1.key }
    files = sorted.map { CrashStates(initial: $0.value, blockBytes: blockBytes) }
    durableNames = Dictionary(
      uniqueKeysWithValues: sorted.enumerated().map { ($1.key, .file($0)) })
  }

  private func name(_ path: String) -> String { String(path.dropFirst(folder.count + 1)) }

  private static func folder(of name: String) -> String {
    name.lastIndex(of: "/").map { String(name[..<$0]) } ?? ""
  }

  private var names: [String: Entry] { names { _ in true } }

  /// With some of the changes, in their order.
  private func names(_ isDone: (Int) -> Bool) -> [String: Entry] {
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
      change(name(path), to: .file(number), at: position)
    case .makeFolder(let path):
      made.insert(name(path))
      change(name(path), to: .folder, at: position)
    case .rename(let path, let other):
      let old = name(path)
      change(name(other), to: names[old], at: position, without: old)
    case .unlink(let path): change(name(path), to: nil, at: position)
    case .folderSynced(let path):
      let own = name(path)
      // Whoever does not say when it began has done nothing else meanwhile.
      let began = folderSyncs[own]?.end() ?? position
      let isDurable = { (change: NameChange) in change.folder == own && change.position < began }
      for change in changes where isDurable(change) { change.perform(on: &durableNames) }
      changes.removeAll(where: isDurable)
    default:
      guard let path = event.path else { return }
      guard case .file(let number)? = names[name(path)] else {
        if case .syncStarted = event {
          folderSyncs[name(path), default: .init()].begin(at: position)
        }
        return
      }
      var syncBegan: Int?
      if case .syncStarted = event { syncs[number, default: .init()].begin(at: position) }
      if case .synced = event { syncBegan = syncs[number]?.end() }
      files[number].apply(event, at: position, syncBegan: syncBegan)
    }
  }

  private mutating func change(
    _ name: String, to entry: Entry?, at position: Int, without gone: String? = nil
  ) {
    changes.append(NameChange(position: position, name: name, entry: entry, gone: gone))
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
    choices.sample(inOrder: inOrder, using: &random)
  }

  /// What is left to chance now.
  package var choices: Choices { Choices(states: self, files: files.map(\.choices)) }

  package struct Choices {
    fileprivate let states: FolderStates
    fileprivate let files: [CrashStates.Choices]

    /// As ``FolderStates/sample(inOrder:using:)``.
    package func sample(
      inOrder: Bool, using random: inout some RandomNumberGenerator
    ) -> [String: [UInt8]] {
      let names = states.sampleNames(inOrder: inOrder, using: &random)
      var state: [String: [UInt8]] = [:]
      for (name, entry) in names.sorted(by: { $0.key < $1.key }) {
        switch entry {
        case .folder: state["\(name)/"] = []
        case .file(let number): state[name] = files[number].sample(using: &random)
        }
      }
      return state
    }
  }

  /// In each folder some of the changes since its last sync.
  private func sampleNames(
    inOrder: Bool, using random: inout some RandomNumberGenerator
  ) -> [String: Entry] {
    var done: Set<Int> = []
    for folder in Set(changes.map(\.folder)).sorted() {
      let own = changes.indices.filter { changes[$0].folder == folder }
      let count = Int.random(in: 0...own.count, using: &random)
      done.formUnion((inOrder ? own : own.shuffled(using: &random)).prefix(count))
    }
    return reachable(names(done.contains))
  }

  /// Without what lies in folders that are not there.
  private func reachable(_ names: [String: Entry]) -> [String: Entry] {
    guard !made.isEmpty else { return names }
    return names.filter { entry in
      var folder = FolderStates.folder(of: entry.key)
      while !folder.isEmpty {
        guard !made.contains(folder) || names[folder] != nil else { return false }
        folder = FolderStates.folder(of: folder)
      }
      return true
    }
  }

  /// What the folder holds where nothing is lost.
  package var latest: [String: [UInt8]] {
    names.reduce(into: [:]) { state, entry in
      switch entry.value {
      case .folder: state["\(entry.key)/"] = []
      case .file(let number): state[entry.key] = files[number].latest
      }
    }
  }
}

/// When the syncs of one file began that have not ended. Several may go on at the same time; how far the one reaches
/// that ends first nobody knows but that it is as far as the first of them.
package struct SyncStarts: Sendable {
  private var positions: [Int] = []

  package init() {}

  package mutating func begin(at position: Int) { positions.append(position) }

  /// - Returns: everything before that is durable.
  package mutating func end() -> Int? { positions.isEmpty ? nil : positions.removeFirst() }
}
