package import PloopIO

/// What a power failure can leave of files that are replaced as a whole: which name means which
/// file, and what is in it.
///
/// A name that was made, moved or removed since the last sync of its folder may be seen as before
/// or as after, but in the order in which it was done; bytes that were not synced may be there
/// wholly, in part or not at all.
package struct RenameStates {
  /// A file by the number of its creation.
  private struct File {
    var durable: [UInt8] = []
    var written: [UInt8] = []
  }

  private var files: [File] = []
  /// The folder after each change since its last sync; the first is durable.
  private var folders: [[String: Int]] = [[:]]

  /// - Parameter initial: durable files by path.
  package init(_ initial: [String: [UInt8]]) {
    for (path, bytes) in initial {
      folders[0][path] = files.count
      files.append(File(durable: bytes, written: bytes))
    }
  }

  private func file(_ path: String) -> Int? { folders.last?[path] }

  private mutating func change(_ body: (inout [String: Int]) -> Void) {
    var folder = folders.last ?? [:]
    body(&folder)
    folders.append(folder)
  }

  package mutating func apply(_ event: IOTrace.Event) {
    switch event {
    case .create(let path):
      let number = files.count
      files.append(File())
      change { $0[path] = number }
    case .rename(let path, let other):
      change { folder in folder[other] = folder.removeValue(forKey: path) }
    case .unlink(let path): change { $0[path] = nil }
    case .folderSynced: folders = [folders.last ?? [:]]
    case .write(let path, let offset, let bytes):
      guard let file = file(path) else { return }
      let end = Int(offset) + bytes.count
      let missing = max(0, end - files[file].written.count)
      files[file].written += [UInt8](repeating: 0, count: missing)
      files[file].written.replaceSubrange(Int(offset)..<end, with: bytes)
    case .synced(let path):
      guard let file = file(path) else { return }
      files[file].durable = files[file].written
    default: break
    }
  }

  /// Everything that a path may hold; nil where it may be missing.
  package func contents(of path: String) -> [[UInt8]?] {
    folders.flatMap { folder -> [[UInt8]?] in
      guard let number = folder[path] else { return [nil] }
      let file = files[number]
      guard file.durable != file.written else { return [file.durable] }
      let half = file.written.count / 2
      let zeroes = [UInt8](repeating: 0, count: file.written.count)
      return [
        file.durable, file.written, Array(file.written[..<half]), zeroes,
        Array(zeroes[..<half] + file.written[half...]),
      ]
    }
  }
}
