internal import PloopControl
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// The notes on snapshots beside a descriptor. Input: the file.
enum NotesTarget {
  /// Seeds name these.
  private static let first = GUID(named: "first")
  private static let second = GUID(named: "second")
  private static let gone = GUID(named: "gone")
  private static let name = "\(Descriptor.fileName).notes"

  static func run(_ input: [UInt8]) throws {
    let geometry = Geometry(version: .v2, clusterShift: 20, sizeBytes: 1 << 30)
    var disk = Descriptor(new: geometry, file: "base.hds")
    try disk.addSnapshot(first, newTopFile: "middle.hds")
    try disk.addSnapshot(second, newTopFile: "top.hds")
    let place = try FuzzFolder()
    let file = DescriptorFile(in: place.folder)
    try place.put(name, input)
    let notes = SnapshotNotes(beside: file)
    for guid in [first, second, gone, disk.topGUID] {
      // What nobody may give is none.
      try notes[guid].check()
    }
    switch notes.health {
    case .setAside: throw BrokenPromise(description: "nobody has set it aside")
    case .damaged: try damaged(notes, input, place, disk)
    case .sound: try sound(notes, input, place, disk)
    }
  }

  private static var new: SnapshotNote {
    var note = SnapshotNote()
    note.name = "new"
    note.isProtected = true
    return note
  }

  private static func others(_ notes: SnapshotNotes, _ disk: Descriptor) -> [SnapshotNote] {
    disk.shots.map(\.guid).filter { $0 != first }.map { notes[$0] }
  }

  private static func sound(
    _ notes: SnapshotNotes, _ input: [UInt8], _ place: FuzzFolder, _ disk: Descriptor
  ) throws {
    let file = DescriptorFile(in: place.folder)
    try promise(
      notes.keepsFile(first) == (notes[first].keepsFile == true), "it keeps another file")
    var changed = notes
    try changed.write(new, on: first, of: disk)
    let text = try place.folder.bytes(of: name, limit: SnapshotNotes.limit)
    let again = SnapshotNotes(beside: file)
    try promise(again.health == .sound && again[first] == new, "a note changes when it is written")
    try promise(others(again, disk) == others(notes, disk), "another note has changed")
    try promise(again[gone] == SnapshotNote(), "a note on what is gone has stayed")
    // As it is: what is read is written, and read again.
    var same = again
    try same.write(again[first], on: first, of: disk)
    try promise(
      try place.folder.bytes(of: name, limit: SnapshotNotes.limit) == text,
      "the same notes have another text")
    var withdrawn = again
    withdrawn.withdraw(first)
    let left = SnapshotNotes(beside: file)
    try promise(left.health == .sound && left[first] == SnapshotNote(), "a note has stayed")
    try promise(others(left, disk) == others(notes, disk), "more than one was withdrawn")
    // Wherever it is cut off, a protection may have been behind it.
    try place.put(name, Array(text.dropLast(1 + input.count % text.count)))
    let cut = SnapshotNotes(beside: file)
    try promise(cut.health == .damaged && cut.keepsFile(gone), "half a file is taken for a whole")
  }

  private static func damaged(
    _ notes: SnapshotNotes, _ input: [UInt8], _ place: FuzzFolder, _ disk: Descriptor
  ) throws {
    let file = DescriptorFile(in: place.folder)
    try promise(notes.keepsFile(first) && notes.keepsFile(gone), "a file is given up")
    var withdrawn = notes
    withdrawn.withdraw(first)
    try promise(
      try place.folder.bytes(of: name, limit: SnapshotNotes.limit) == input,
      "what nobody understands was changed")
    var changed = notes
    try changed.write(new, on: first, of: disk)
    try promise(
      try place.folder.bytes(of: "\(name).damaged", limit: SnapshotNotes.limit) == input,
      "what was set aside is something else")
    let again = SnapshotNotes(beside: file)
    try promise(again.health == .setAside && again[first] == new, "a note was not written")
    try promise(others(again, disk) == others(notes, disk), "a note that was good is lost")
    try promise(again.keepsFile(first) && again.keepsFile(gone), "a file is given up later")
  }
}
