internal import FoundationEssentials
package import PloopDevice
package import PloopFormat
package import PloopIO

/// What people know of a snapshot, and its descriptor does not say.
package struct SnapshotNote: Codable, Sendable, Equatable {
  package var name: String?
  package var summary: String?
  package var labels: [String: String] = [:]
  /// It is not merged or deleted.
  package var isProtected = false
  /// Its file is never removed, whatever becomes of it.
  package var keepsFile: Bool?
  /// Its file is another disk's, which this one lies over: it stays, whoever merges what it holds.
  package var isLinked: Bool?
  /// Seconds since 1970; nil for one that was made by another tool.
  package var createdAt: Double?

  package init() {}

  /// - Throws: `invalid-value`, with a pointer to the member.
  package func check() throws(ServiceError) {
    if let name, !(1...255).contains(name.characterCount) || SnapshotNote.hasControls(name) {
      throw ServiceError(
        .invalidValue, "a name has 1 to 255 characters, none of them a control character",
        pointer: "/name")
    }
    if let summary, summary.characterCount > 1024 {
      throw ServiceError(
        .invalidValue, "a description has at most 1024 characters", pointer: "/description")
    }
    try Names.require(labels: labels)
  }

  private static func hasControls(_ text: String) -> Bool {
    text.unicodeScalars.contains { $0.properties.generalCategory == .control }
  }
}

/// The notes on a disk's snapshots, in a file beside its descriptor: they travel with the disk, and
/// survive the loss of the state database (docs/decisions/0007-notes-beside-the-descriptor.md).
///
/// Whoever changes them holds the descriptor's lock.
package struct SnapshotNotes {
  /// What the notes are worth.
  package enum Health: Sendable {
    case sound
    /// They cannot be read, and keep every snapshot from being merged or deleted.
    case damaged
    /// They were damaged once: no file of the disk is removed any more.
    case setAside
  }

  /// Bytes of the file.
  package static let limit = 4 << 20

  private let folder: ImageFolder
  private let name: String
  private var notes: [String: SnapshotNote]
  /// There is a file, and nobody can say what was in it: a protection may have been.
  package let isDamaged: Bool
  /// The file as it was, if it could be read.
  private let bytes: [UInt8]?

  /// Reads them, whoever wrote them. What is no note counts as none, and what cannot be read at all as
  /// no notes.
  package init(beside descriptor: DescriptorFile) {
    folder = descriptor.folder
    name = "\(descriptor.name).notes"
    guard folder.contains(name) else {
      notes = [:]
      isDamaged = false
      bytes = nil
      return
    }
    bytes = try? folder.bytes(of: name, limit: SnapshotNotes.limit)
    let read = bytes.flatMap {
      try? JSONDecoder().decode([String: SnapshotNote].self, from: Data($0))
    }
    notes = (read ?? [:]).filter { (try? $0.value.check()) != nil }
    isDamaged = read == nil || notes.count != read?.count
  }

  package var health: Health {
    isDamaged ? .damaged : folder.contains("\(name).damaged") ? .setAside : .sound
  }

  /// Whether a delta's file stays when its snapshot goes. Once notes were damaged that is so of every
  /// one: what they said of files that other disks share is lost.
  package func keepsFile(_ guid: GUID) -> Bool { self[guid].keepsFile == true || health != .sound }

  package subscript(guid: GUID) -> SnapshotNote { notes[guid.description] ?? SnapshotNote() }

  /// Adds a note; those on snapshots that are gone are dropped.
  ///
  /// - Returns: what the file is to be.
  package mutating func adding(
    _ note: SnapshotNote, on guid: GUID, of descriptor: Descriptor
  ) throws(ServiceError) -> ImageFolder.Replacement {
    let known = Set(descriptor.shots.map(\.guid.description))
    notes = notes.filter { known.contains($0.key) }
    notes[guid.description] = note
    let text: [UInt8]
    do { text = try encoded() } catch { throw ServiceError(storing: error) }
    guard text.count <= SnapshotNotes.limit else {
      throw ServiceError(.valueImpossible, "the notes on all snapshots are too long together")
    }
    return ImageFolder.Replacement(of: name, with: text)
  }

  /// Writes a note, durably.
  package mutating func write(
    _ note: SnapshotNote, on guid: GUID, of descriptor: Descriptor
  ) throws(ServiceError) {
    let changed = try adding(note, on: guid, of: descriptor)
    do throws(IOError) {
      // What could not be understood is left for people.
      if isDamaged {
        if let bytes {
          try folder.replace("\(name).damaged", with: bytes)
        } else {
          try folder.rename(name, to: "\(name).damaged")
        }
      }
      try folder.replace(changed.name, with: changed.bytes)
    } catch { throw ServiceError(storing: error) }
  }

  /// Takes back the note on a snapshot that was not made after all. One that stays means nothing, and
  /// is dropped with the next change.
  package mutating func withdraw(_ guid: GUID) {
    guard !isDamaged, notes.removeValue(forKey: guid.description) != nil else { return }
    guard !notes.isEmpty, let text = try? encoded() else {
      try? folder.unlink(name)
      return
    }
    try? folder.replace(name, with: text)
  }

  private func encoded() throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return Array(try encoder.encode(notes))
  }
}
