import Foundation
import Logging
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Notes on snapshots")
struct SnapshotNotesTests {
  private let folder: TemporaryFolder
  private let file: DescriptorFile
  private let descriptor: Descriptor
  private let guid: GUID

  init() throws {
    folder = try TemporaryFolder()
    file = DescriptorFile(in: try ImageFolder(path: folder.path), name: Descriptor.fileName)
    let descriptor = try Descriptor(
      chain: ["base.hds", "top.hds"],
      of: Geometry(version: .v2, clusterShift: 20, sizeBytes: 1 << 30), isBaseRaw: false)
    self.descriptor = descriptor
    guid = descriptor.shots[0].guid
  }

  private var path: String { "\(folder.path)/\(Descriptor.fileName).notes" }

  private func put(_ text: String) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: path))
  }

  private func note(_ change: (inout SnapshotNote) -> Void) -> SnapshotNote {
    var note = SnapshotNote()
    change(&note)
    return note
  }

  @Test("what is written is read, and there is none before")
  func roundTrip() throws {
    var notes = SnapshotNotes(beside: file)
    #expect(notes.health == .sound && notes[guid] == SnapshotNote())
    let note = note {
      $0.name = "vor dem Umbau – ✓"
      $0.summary = "two\nlines"
      $0.labels = ["why": "upgrade"]
      $0.isProtected = true
      $0.keepsFile = true
      $0.createdAt = 1_764_000_000.25
    }
    try notes.write(note, on: guid, of: descriptor)
    let again = SnapshotNotes(beside: file)
    #expect(again[guid] == note && again.health == .sound && again.keepsFile(guid))
    #expect(!again.keepsFile(.random()))
  }

  @Test("a note on a snapshot that is gone is dropped with the next change, and the others stay")
  func dropped() throws {
    var notes = SnapshotNotes(beside: file)
    let gone = GUID.random()
    try put("{\"\(gone)\":{\"labels\":{},\"isProtected\":true}}")
    notes = SnapshotNotes(beside: file)
    #expect(notes[gone].isProtected)
    try notes.write(note { $0.name = "top" }, on: descriptor.topGUID, of: descriptor)
    try notes.write(note { $0.name = "base" }, on: guid, of: descriptor)
    let again = SnapshotNotes(beside: file)
    #expect(again[gone] == SnapshotNote())
    #expect(again[guid].name == "base" && again[descriptor.topGUID].name == "top")
  }

  @Test("a note that is withdrawn leaves nothing, and the others as they were")
  func withdrawn() throws {
    var notes = SnapshotNotes(beside: file)
    try notes.write(note { $0.name = "gone" }, on: guid, of: descriptor)
    notes.withdraw(guid)
    #expect(try Tool.shell("ls '\(folder.path)'").output == "")
    try notes.write(note { $0.name = "kept" }, on: descriptor.topGUID, of: descriptor)
    let before = try Data(contentsOf: URL(fileURLWithPath: path))
    try notes.write(note { $0.name = "gone" }, on: guid, of: descriptor)
    notes.withdraw(guid)
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
    try put("nonsense")
    notes = SnapshotNotes(beside: file)
    notes.withdraw(guid)
    #expect(SnapshotNotes(beside: file).isDamaged)
  }

  static let damages: [(name: String, text: String)] = [
    ("empty", ""), ("no JSON", "nonsense"), ("cut off", "{\"{1"), ("a list", "[]"),
    ("no note", "{\"G\":7}"),
    ("a name that is a number", "{\"G\":{\"labels\":{},\"isProtected\":true,\"name\":7}}"),
    ("protection is missing", "{\"G\":{\"labels\":{}}}"),
    ("a name that nobody may give", "{\"G\":{\"labels\":{},\"isProtected\":false,\"name\":\"\"}}"),
    ("a label that nobody may give", "{\"G\":{\"labels\":{\"\":\"\"},\"isProtected\":false}}"),
  ]

  @Test("whatever is no file of notes is damaged, and keeps files", arguments: damages)
  func damaged(_ damage: (name: String, text: String)) throws {
    let text = damage.text.replacingOccurrences(of: "G", with: guid.description)
    try put(text)
    var notes = SnapshotNotes(beside: file)
    #expect(notes.health == .damaged && notes.isDamaged && notes.keepsFile(.random()))
    // A change sets it aside as it was; what it said of files is lost from then on.
    try notes.write(note { $0.name = "new" }, on: guid, of: descriptor)
    #expect(try Data(contentsOf: URL(fileURLWithPath: "\(path).damaged")) == Data(text.utf8))
    let again = SnapshotNotes(beside: file)
    #expect(again.health == .setAside && !again.isDamaged && again[guid].name == "new")
    #expect(again.keepsFile(.random()))
    try Tool.shell("rm '\(path).damaged'")
    #expect(SnapshotNotes(beside: file).health == .sound)
  }

  @Test("of notes that are damaged in part the good ones are read, and none is believed to be all")
  func halfDamaged() throws {
    try put(
      "{\"\(guid)\":{\"labels\":{},\"isProtected\":false,\"name\":\"good\"},"
        + "\"\(descriptor.topGUID)\":{\"labels\":{},\"isProtected\":false,\"name\":\"\"}}")
    let notes = SnapshotNotes(beside: file)
    #expect(notes.isDamaged && notes[guid].name == "good")
  }

  @Test("a file that is too long to be ours is damaged, and is set aside as a whole")
  func tooLong() throws {
    try Tool.shell("truncate -s \(SnapshotNotes.limit + 1) '\(path)'")
    var notes = SnapshotNotes(beside: file)
    #expect(notes.isDamaged)
    try notes.write(SnapshotNote(), on: guid, of: descriptor)
    #expect(
      try Tool.shell("stat -c %s '\(path).damaged'").output == "\(SnapshotNotes.limit + 1)\n")
    #expect(SnapshotNotes(beside: file).health == .setAside)
  }

  @Test("something that is no file at all is damaged")
  func folderThere() throws {
    try Tool.shell("mkdir '\(path)'")
    #expect(SnapshotNotes(beside: file).isDamaged)
  }

  @Test("notes that are too long together are refused, and what was there stays")
  func limit() throws {
    let many = try Descriptor(
      chain: (0..<250).map { "\($0).hds" },
      of: Geometry(version: .v2, clusterShift: 20, sizeBytes: 1 << 30), isBaseRaw: false)
    let long = note { note in
      for index in 0..<64 { note.labels["label-\(index)"] = String(repeating: "x", count: 240) }
    }
    var all: [String: SnapshotNote] = [:]
    for shot in many.shots { all[shot.guid.description] = long }
    // As many descriptions as there is room for.
    let room = SnapshotNotes.limit - (try JSONEncoder().encode(all).count)
    let summary = String(repeating: "y", count: 1024)
    for shot in many.shots.prefix(room / (1024 + "\"summary\":\"\",".utf8.count)) {
      all[shot.guid.description]?.summary = summary
    }
    let text = try JSONEncoder().encode(all)
    try #require(text.count <= SnapshotNotes.limit && many.topGUID == many.shots.last?.guid)
    try put(String(decoding: text, as: UTF8.self))
    var notes = SnapshotNotes(beside: file)
    #expect(notes.health == .sound && notes[many.topGUID] == long)
    var longer = long
    longer.summary = summary
    let refusal = #expect(throws: ServiceError.self) {
      try notes.write(longer, on: many.topGUID, of: many)
    }
    #expect(refusal?.code == .valueImpossible)
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == text)
  }

  static let refused: [(name: String, note: @Sendable (inout SnapshotNote) -> Void)] = [
    ("an empty name", { $0.name = "" }),
    ("a name of 256 characters", { $0.name = String(repeating: "é", count: 256) }),
    ("a name with a control character", { $0.name = "a\u{7}" }),
    ("a description of 1025 characters", { $0.summary = String(repeating: "é", count: 1025) }),
    ("a label without a name", { $0.labels = ["": "x"] }),
  ]

  @Test("what a note may be", arguments: refused.indices)
  func limits(_ row: Int) throws {
    #expect(throws: ServiceError.self, "\(Self.refused[row].name)") {
      try note(Self.refused[row].note).check()
    }
    try note {
      // As the contract counts them, however many bytes each has.
      $0.name = String(repeating: "é", count: 255)
      $0.summary = String(repeating: "\u{1F4BE}", count: 1024)
      $0.labels = [String(repeating: "é", count: 255): String(repeating: "é", count: 255)]
    }.check()
  }
}

@Suite("Damaged notes on snapshots, as they are told")
struct DamagedNotesTests {
  /// Keeps what is logged.
  private struct Lines: LogHandler {
    let lines: Locked<[String]>
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
      lines.withLock { $0.append("\(event.level) \(event.message) \(event.metadata ?? [:])") }
    }
  }

  private let lines = Locked<[String]>([])
  private let fixture: ServiceFixture

  init() throws {
    let lines = lines
    fixture = try ServiceFixture(log: Logger(label: "test") { _ in Lines(lines: lines) })
  }

  private func condition() async throws -> DeviceInfo.Condition? {
    try await fixture.service.device("vm").conditions.first { $0.type == "NotesReadable" }
  }

  private func warnings() -> [String] {
    lines.withLock { $0.filter { $0.contains("notes on snapshots were damaged") } }
  }

  @Test("the device and the log say what is protected because of them, and what to do")
  func told() async throws {
    try await fixture.create("vm")
    let guid = try await fixture.snapshot("vm") { $0.isProtected = true }
    #expect(try await condition()?.reason == "Readable")
    #expect(try await fixture.service.device("vm").conditions.first?.type == "Ready")
    let file = "\(fixture.images)/vm/DiskDescriptor.xml.notes"
    let before = try await fixture.service.device("vm").revision
    try Tool.shell("cp '\(file)' '\(fixture.folder.path)/kept' && echo nonsense > '\(file)'")
    #expect(try await fixture.service.snapshot("vm", guid).snapshot.refusal == "snapshot-protected")
    // Who waits for the device hears of it.
    try await until { try await fixture.service.device("vm").revision > before }
    let damaged = try #require(try await condition())
    #expect(!damaged.isTrue && damaged.reason == "Damaged")
    #expect(damaged.message.contains("no snapshot is merged or deleted"))
    #expect(damaged.message.contains("PATCH a snapshot"))
    #expect(warnings().count == 1, "\(warnings())")
    #expect(warnings().first?.contains("vm/DiskDescriptor.xml.notes") == true)
    // It is found again by the next life, and by nobody twice in one.
    try fixture.stop()
    try await fixture.restart()
    #expect(try await condition()?.reason == "Damaged")
    _ = try await fixture.service.snapshots("vm")
    #expect(warnings().count == 2, "\(warnings())")
    // Somebody brings the file back.
    try Tool.shell("cp '\(fixture.folder.path)/kept' '\(file)'")
    #expect(try await fixture.service.snapshots("vm").items.first?.note.isProtected == true)
    #expect(try await condition()?.reason == "Readable")
    // Or sets it aside.
    try Tool.shell("echo nonsense > '\(file)'")
    var change = SnapshotChange()
    change.name = "new"
    _ = try await fixture.service.changeSnapshot("vm", guid, change, ifRevision: nil)
    let aside = try #require(try await condition())
    #expect(aside.isTrue && aside.reason == "SetAside")
    #expect(aside.message.contains("no file of the disk is removed"))
  }

  private func until(_ isWanted: () async throws -> Bool) async throws {
    let deadline = Deadline.after(seconds: 120)
    while try await !isWanted() {
      guard !deadline.hasPassed else { throw Tool.Failure(description: "it never came") }
      let changes = try fixture.service.changes
      if try await isWanted() { return }
      _ = try await fixture.service.change(
        of: .device("vm"), since: changes, milliseconds: 200)
    }
  }
}
