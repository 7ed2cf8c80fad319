internal import FoundationEssentials
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// What people know of a snapshot, and its descriptor does not say.
package struct SnapshotNote: Codable, Sendable, Equatable {
  package var name: String?
  package var summary: String?
  package var labels: [String: String] = [:]
  /// It is not merged or deleted.
  package var isProtected = false
  /// Seconds since 1970; nil for one that was made by another tool.
  package var createdAt: Double?

  package init() {}

  /// - Throws: `invalid-value`, with a pointer to the member.
  func check() throws(ServiceError) {
    if let name, !(1...255).contains(name.utf8.count) || name.utf8.contains(where: { $0 < 0x20 }) {
      throw ServiceError(
        .invalidValue, "a name has 1 to 255 bytes, none of them a control character",
        pointer: "/name")
    }
    if let summary, summary.utf8.count > 1024 {
      throw ServiceError(
        .invalidValue, "a description has at most 1024 bytes", pointer: "/description")
    }
    try Names.require(labels: labels)
  }
}

/// The notes on a disk's snapshots, in a file beside its descriptor: they travel with the disk, and
/// survive the loss of the state database (docs/decisions/0007-notes-beside-the-descriptor.md).
///
/// Whoever changes them holds the descriptor's lock.
struct SnapshotNotes {
  private static let limit = 4 << 20

  private let folder: ImageFolder
  private let name: String
  private var notes: [String: SnapshotNote]

  /// Reads them; what is not there, damaged, or not ours counts as none.
  init(beside descriptor: DescriptorFile) {
    folder = descriptor.folder
    name = "\(descriptor.name).notes"
    let bytes = try? folder.bytes(of: name, limit: SnapshotNotes.limit)
    notes =
      bytes.flatMap { try? JSONDecoder().decode([String: SnapshotNote].self, from: Data($0)) }
      ?? [:]
  }

  subscript(guid: GUID) -> SnapshotNote { notes[guid.description] ?? SnapshotNote() }

  /// Writes a note, durably; those on snapshots that are gone are dropped.
  mutating func write(
    _ note: SnapshotNote, on guid: GUID, of descriptor: Descriptor
  ) throws(ServiceError) {
    let known = Set(descriptor.shots.map(\.guid.description))
    notes = notes.filter { known.contains($0.key) }
    notes[guid.description] = note
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do {
      let bytes = Array(try encoder.encode(notes))
      guard bytes.count <= SnapshotNotes.limit else {
        throw ServiceError(.invalidValue, "the notes on all snapshots are too long together")
      }
      try folder.replace(name, with: bytes)
    } catch { throw ServiceError(storing: error) }
  }
}
