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

  @Test("Records come back as they were written; what was removed does not")
  func records() throws {
    let folder = try TemporaryFolder()
    do {
      let store = try Store(path: folder.path)
      for id in ["a", "b", "c"] { try store.save(record(id)) }
      try store.remove("b")
      try store.remove("never")
    }
    let (records, damaged) = try Store(path: folder.path).load()
    #expect(records == [record("a"), record("c")])
    #expect(damaged.isEmpty)
  }

  @Test("A revision is never given out twice, also not by a later life")
  func revisions() throws {
    let folder = try TemporaryFolder()
    var last: UInt64 = 0
    for _ in 1...3 {
      let store = try Store(path: folder.path)
      for _ in 1...1000 {
        let next = try store.nextRevision()
        #expect(next > last)
        last = next
      }
    }
  }

  @Test("A damaged record costs one device, is reported, and is left where it is")
  func damaged() throws {
    let folder = try TemporaryFolder()
    let store = try Store(path: folder.path)
    for id in ["a", "b", "c"] { try store.save(record(id)) }
    try Tool.shell(
      "cd '\(folder.path)/devices' && truncate -s 20 b.json && echo '{}' > c.json && touch x.json.tmp"
    )
    let (records, damaged) = try store.load()
    #expect(records.map(\.id) == ["a"])
    #expect(damaged.count == 2)
    try Tool.shell("test -e '\(folder.path)/devices/b.json'")
  }

  @Test("A second service on the same folder is refused")
  func locked() throws {
    let folder = try TemporaryFolder()
    let store = try Store(path: folder.path)
    #expect(throws: ServiceError.self) { try Store(path: folder.path) }
    _ = try store.nextRevision()
  }

  @Test("A write that fails leaves the old record")
  func failing() throws {
    let folder = try TemporaryFolder()
    let store = try Store(path: folder.path)
    try store.save(record("a"))
    // A folder in the way of the temporary file.
    try Tool.shell("mkdir '\(folder.path)/devices/a.json.tmp'")
    var changed = record("a")
    changed.readonly = false
    let isRefused: Bool
    do throws(ServiceError) {
      try store.save(changed)
      isRefused = false
    } catch { isRefused = error.code == .ioError }
    #expect(isRefused)
    #expect(try store.load().records == [record("a")])
  }
}
