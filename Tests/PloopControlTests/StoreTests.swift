import FoundationEssentials
import GRDB
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("The state folder")
struct StoreTests {
  private func record(_ id: String) -> DeviceRecord {
    DeviceRecord(
      id: id, uuid: "u", revision: 1, deltas: [.init(path: "main:a", isRaw: true)], readonly: true,
      suspended: false, autostart: true, labels: ["k": "ü \" \\"],
      exports: [.init(name: "e", readonly: true, sharedWriters: false, summary: "s", revision: 2)],
      sizeBytes: 1 << 50, clusterBytes: 1 << 20, version: 2, isAttached: true, failure: "x",
      createdAt: 1.5, updatedAt: 2.25)
  }

  /// Opens the folder again after the store before has gone. A program that another test is just
  /// starting may hold a copy of the old lock until it is started.
  private func open(_ path: String) throws -> Store {
    let deadline = Deadline.after(seconds: 600)
    while true {
      do throws(ServiceError) { return try Store(path: path) } catch {
        guard error.code == .imageInUse, !deadline.hasPassed else { throw error }
        try Tool.shell("true")
      }
    }
  }

  private func records(_ store: Store) throws -> [DeviceRecord] {
    try store.read { transaction throws(ServiceError) in try transaction.records() }.records
  }

  private func revision(_ store: Store) throws -> UInt64 {
    try store.write { transaction throws(ServiceError) in try transaction.nextRevision() }
  }

  @Test("Records come back as they were written; what was removed does not")
  func records() throws {
    let folder = try TemporaryFolder()
    do {
      let store = try open(folder.path)
      for id in ["a", "b", "c"] { try store.save(record(id)) }
      try store.remove("b")
      try store.remove("never")
    }
    let store = try open(folder.path)
    #expect(try records(store) == [record("a"), record("c")])
    #expect(store.damages.isEmpty)
  }

  @Test("What a reply promises survives power loss, and foreign keys hold")
  func settings() throws {
    let folder = try TemporaryFolder()
    let store = try open(folder.path)
    let settings = try store.database.queue.read { database in
      try ["journal_mode", "synchronous", "foreign_keys"].map {
        try String.fetchOne(database, sql: "PRAGMA \($0)")
      }
    }
    #expect(settings == ["wal", "2", "1"])
  }

  @Test("A revision is never given out twice, also not by a later life")
  func revisions() throws {
    let folder = try TemporaryFolder()
    var last: UInt64 = 0
    for _ in 1...3 {
      let store = try open(folder.path)
      #expect(store.lastRevision == last)
      for _ in 1...20 {
        let next = try revision(store)
        #expect(next > last)
        #expect(store.lastRevision == next)
        last = next
      }
    }
  }

  @Test("A transaction that throws has changed nothing, its revisions included")
  func allOrNothing() throws {
    let folder = try TemporaryFolder()
    let store = try open(folder.path)
    try store.save(record("a"))
    let before = try revision(store)
    let refusal = #expect(throws: ServiceError.self) {
      try store.write { transaction throws(ServiceError) in
        _ = try transaction.nextRevision()
        try transaction.remove("a")
        try transaction.save(record("b"))
        throw ServiceError(.deviceBusy, "no")
      }
    }
    #expect(refusal?.code == .deviceBusy)
    #expect(try records(store) == [record("a")])
    #expect(try revision(store) == before + 1)
  }

  @Test("A damaged record costs one device, is reported, and is left where it is")
  func damagedRecord() throws {
    let folder = try TemporaryFolder()
    let store = try open(folder.path)
    for id in ["a", "b"] { try store.save(record(id)) }
    try Tool.shell(
      "sqlite3 '\(folder.path)/ploopd.db' \"UPDATE devices SET record = '{}' WHERE id = 'b'\"")
    for _ in 1...2 {
      let (records, damaged) = try store.read { transaction throws(ServiceError) in
        try transaction.records()
      }
      #expect(records.map(\.id) == ["a"])
      #expect(damaged.count == 1)
    }
  }

  @Test("A second service on the same folder is refused")
  func locked() throws {
    let folder = try TemporaryFolder()
    let store = try open(folder.path)
    #expect(throws: ServiceError.self) { try Store(path: folder.path) }
    _ = try revision(store)
  }

  // MARK: The file is not as it was left

  @Test(
    "A damaged database is set aside, and revisions go on above",
    arguments: [
      "head -c 100000 /dev/urandom > ploopd.db", "echo no database > ploopd.db",
      "dd if=/dev/urandom of=ploopd.db bs=4096 seek=1 count=3 conv=notrunc status=none",
      "truncate -s 5000 ploopd.db",
    ])
  func damaged(by command: String) throws {
    let folder = try TemporaryFolder()
    var last: UInt64 = 0
    for number in 1...2 {
      do {
        let store = try open(folder.path)
        for id in 0..<30 { try store.save(record("d\(id)")) }
        last = try revision(store)
        try store.database.queue.close()
      }
      try Tool.shell("cd '\(folder.path)' && rm -f ploopd.db-wal && \(command)")
      let store = try open(folder.path)
      #expect(store.damages.count == 1)
      #expect(store.damages.first?.contains("ploopd.db.damaged-\(number)") == true)
      #expect(try records(store).isEmpty)
      // A second later the clock is beyond whatever was given out.
      #expect(try revision(store) > last)
      try Tool.shell("test -s '\(folder.path)/ploopd.db.damaged-\(number)'")
      try store.database.queue.close()
      try Tool.shell("sqlite3 '\(folder.path)/ploopd.db' 'UPDATE service SET revision = 3'")
    }
  }

  @Test("A database that was deleted is begun anew")
  func deleted() throws {
    let folder = try TemporaryFolder()
    do { try open(folder.path).save(record("a")) }
    try Tool.shell("rm '\(folder.path)'/ploopd.db*")
    let store = try open(folder.path)
    #expect(store.damages.isEmpty)
    #expect(try records(store).isEmpty)
  }

  @Test("A database of a newer version is refused, and left as it is")
  func newer() throws {
    let folder = try TemporaryFolder()
    do { try open(folder.path).save(record("a")) }
    let file = "\(folder.path)/ploopd.db"
    try Tool.shell("sqlite3 '\(file)' \"INSERT INTO grdb_migrations VALUES ('9999 future')\"")
    let refusal = #expect(throws: ServiceError.self) { try open(folder.path) }
    #expect(refusal?.detail.contains("newer version") == true)
    let kept = try Tool.shell("sqlite3 '\(file)' 'SELECT id FROM devices'").output
    #expect(kept == "a\n")
  }

  @Test("A full disk is said to be one, and nothing is half done")
  func full() throws {
    let folder = try TemporaryFolder()
    let small = "\(folder.path)/small"
    try Tool.shell("mkdir '\(small)' && mount -t tmpfs -o size=512k none '\(small)'")
    defer { _ = try? Tool.shell("umount -l '\(small)'") }
    let store = try open(small)
    var big = record("b")
    big.labels["k"] = String(repeating: "x", count: 1 << 20)
    try store.save(record("a"))
    let before = try revision(store)
    let refusal = #expect(throws: ServiceError.self) {
      try store.write { transaction throws(ServiceError) in
        _ = try transaction.nextRevision()
        try transaction.remove("a")
        try transaction.save(big)
      }
    }
    #expect(refusal?.code == .insufficientSpace)
    #expect(try records(store) == [record("a")])
    #expect(try revision(store) == before + 1)
  }

  // MARK: From earlier versions

  private func writeFiles(_ path: String) throws {
    try Tool.shell("mkdir -p '\(path)/devices'")
    let folder = try ImageFolder(path: path)
    try folder.replace("service.json", with: Array(#"{"reservedRevision":100000}"#.utf8))
    for id in ["a", "b"] {
      let bytes = [UInt8](try JSONEncoder().encode(record(id)))
      try folder.folder(beneath: "devices").replace("\(id).json", with: bytes)
    }
    try Tool.shell("cd '\(path)/devices' && touch b.json.tmp")
  }

  @Test("The files of the first version are taken in once, and are gone then")
  func files() throws {
    let folder = try TemporaryFolder()
    try writeFiles(folder.path)
    for life in 1...2 {
      let store = try open(folder.path)
      #expect(try records(store).map(\.id) == (life == 1 ? ["a", "b"] : ["b"]))
      #expect(try records(store).last == record("b"))
      #expect(try revision(store) == UInt64(100_000 + life))
      #expect(store.damages.isEmpty)
      try store.remove("a")
    }
    let left = try Tool.shell("ls '\(folder.path)' | grep -v '^ploopd.db'").output
    #expect(left == "lock\n")
  }

  @Test("A kill between taking files in and removing them changes nothing")
  func filesTwice() throws {
    let folder = try TemporaryFolder()
    try writeFiles(folder.path)
    try Tool.shell("cp -r '\(folder.path)/devices' '\(folder.path)/kept'")
    do {
      let store = try open(folder.path)
      try store.remove("a")
    }
    try Tool.shell("mv '\(folder.path)/kept' '\(folder.path)/devices'")
    let store = try open(folder.path)
    #expect(try records(store).map(\.id) == ["b"])
    try Tool.shell("test ! -e '\(folder.path)/devices'")
  }

  @Test("A damaged file costs one device, and is left for people under another name")
  func damagedFile() throws {
    let folder = try TemporaryFolder()
    try writeFiles(folder.path)
    try Tool.shell("truncate -s 20 '\(folder.path)/devices/a.json'")
    do {
      let store = try open(folder.path)
      #expect(store.damages.count == 1)
      #expect(try records(store).map(\.id) == ["b"])
    }
    try Tool.shell("test -e '\(folder.path)/devices/a.json.damaged'")
    #expect(try open(folder.path).damages.isEmpty)
  }

  @Test("Every earlier schema is brought up to date with what is in it", arguments: 1...10)
  func migrations(step: Int) throws {
    let folder = try TemporaryFolder()
    let names = Migrations.migrator().migrations
    #expect(names.count == 11)
    do {
      let queue = try DatabaseQueue(path: "\(folder.path)/ploopd.db")
      try Migrations.migrator().migrate(queue, upTo: names[step - 1])
      try queue.write { database in
        try StateTransaction(database).save(record("a"))
        if step >= 2 {
          let key = RequestKey("k", route: "POST /v1/devices", fingerprint: "f")
          try StateTransaction(database).keep("answer", of: key, seconds: 100)
        }
      }
      try queue.close()
    }
    let store = try open(folder.path)
    #expect(try records(store) == [record("a")])
    let key = RequestKey("k", route: "", fingerprint: "")
    let kept = try store.read { transaction throws(ServiceError) in
      try transaction.answer(of: key)
    }
    #expect(kept?.answer == (step >= 2 ? "answer" : nil))
    let tables = try Tool.shell("sqlite3 '\(folder.path)/ploopd.db' .tables").output
    for table in [
      "answers", "devices", "events", "intents", "job_log", "jobs", "service", "targets",
      "verdicts",
    ] {
      #expect(tables.contains(table))
    }
  }

  @Test("A target and the verdicts on its backups are kept, and go together")
  func targets() throws {
    let folder = try TemporaryFolder()
    var target = Target(name: "nas", place: .directory(path: "main:backups"), createdAt: 5)
    target.revision = 3
    let verdict = StateTransaction.Verdict(verifiedAt: 7, problem: "one is wrong")
    do {
      let store = try open(folder.path)
      try store.write { [target] transaction throws(ServiceError) in
        try transaction.save(target)
        try transaction.save(
          Target(name: "file", place: .file(path: "a/b", format: .raw), createdAt: 6))
        try transaction.save(verdict, of: "one", on: "nas")
        try transaction.save(target)
      }
    }
    let store = try open(folder.path)
    func state() throws -> ([String], [String: StateTransaction.Verdict]) {
      try store.read { transaction throws(ServiceError) in
        let (targets, damaged) = try transaction.targets()
        return (targets.map { "\($0)" } + damaged, try transaction.verdicts(on: "nas"))
      }
    }
    let (kept, verdicts) = try state()
    #expect(kept.count == 2 && kept.last == "\(target)", "\(kept)")
    #expect(verdicts == ["one": verdict])
    try store.write { transaction throws(ServiceError) in try transaction.removeTarget("nas") }
    let (left, gone) = try state()
    #expect(left.count == 1 && gone.isEmpty)
  }

  @Test("Answers end with their time and with their number; events with theirs")
  func retention() throws {
    let folder = try TemporaryFolder()
    let store = try open(folder.path)
    func key(_ text: String) -> RequestKey { RequestKey(text, route: "r", fingerprint: "f") }
    let (old, new) = try store.write { transaction throws(ServiceError) in
      try transaction.keep("1", of: key("old"), seconds: -1)
      try transaction.keep("2", of: key("new"), seconds: 100)
      for revision in [UInt64(1), 2, 3, StateTransaction.eventsKept + 2] {
        try transaction.note(.deviceChanged, "a", device: "a", at: revision)
      }
      return (try transaction.answer(of: key("old")), try transaction.answer(of: key("new")))
    }
    #expect(old == nil)
    #expect(new?.answer == "2")
    let left = try Tool.shell(
      "sqlite3 '\(folder.path)/ploopd.db' 'SELECT revision FROM events; SELECT count(*) FROM answers'"
    ).output
    #expect(left == "3\n10002\n1\n")
  }
}
