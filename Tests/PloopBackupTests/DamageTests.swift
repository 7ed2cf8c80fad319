import CrashKit
import PloopBackup
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("A backup that is damaged")
struct DamageTests {
  /// A full point and two increments; cluster 3 is in the first and the second.
  private func bench() throws -> BackupBench {
    let bench = try BackupBench()
    bench.write(0..<20)
    try bench.point()
    bench.write([3, 30])
    try bench.point(changed: [3, 30])
    bench.write([4])
    try bench.point(changed: [4])
    return bench
  }

  @Test("is told cluster by cluster, and never handed out")
  func clusters() throws {
    let bench = try bench()
    // One cluster of header and index, then the clusters in order.
    for cluster in [7, 3, 19] { try bench.flip("b0.hds", at: UInt64(1 + cluster) << 12 + 100) }
    #expect(try bench.wrong("b0") == [3, 7, 19])
    #expect(try bench.wrong("b1").isEmpty)
    for id in ["b0", "b1", "b2"] {
      let reader = try PointReader(id, of: bench.chain)
      let buffer = AlignedBuffer(count: 4 << 12)
      let found = kind { try reader.read(into: buffer.region, from: 6) }
      #expect(found == .corrupt(clusters: [7]), "\(id)")
      // The increment has its own.
      let hidden = kind { try reader.read(into: buffer.region, from: 2) }
      #expect(hidden == (id == "b0" ? .corrupt(clusters: [3]) : nil), "\(id)")
      let sink = try StoredBackup.raw("out-\(id)", in: bench.folder, of: reader.geometry)
      let copied = kind { try bench.copy(reader, to: sink) }
      guard case .corrupt? = copied else {
        Issue.record("restored \(id): \(String(describing: copied))")
        continue
      }
    }
  }

  @Test("is told when its file is shorter, or its index says something else")
  func index() throws {
    let bench = try bench()
    try bench.folder.open("b0.hds", writable: true).truncate(to: 19 << 12)
    guard case .corrupt? = kind({ _ = try PointCheck("b0", of: bench.chain) }) else {
      Issue.record("an entry behind the end of the file is not told")
      return
    }
    // Two entries of the increment change places.
    let image = try bench.folder.open("b1.hds", writable: true)
    // Which of them lies before the other is a matter of the threads that stored them.
    let entry = AlignedBuffer(count: 4).region
    let entries = try [3, 30].map { cluster in
      try image.readOrZero(into: entry, at: UInt64(64 + 4 * cluster))
      return entry.littleEndian(at: 0, as: UInt32.self)
    }
    #expect(entries.sorted() == [1, 2])
    for (cluster, place) in zip([30, 3], entries) {
      entry.setLittleEndian(place, at: 0)
      try image.write(entry, at: UInt64(64 + 4 * cluster))
    }
    #expect(try bench.wrong("b1") == [3, 30])
    // One is gone.
    entry.setLittleEndian(UInt32(0), at: 0)
    try bench.folder.open("b2.hds", writable: true).write(entry, at: 64 + 4 * 4)
    #expect(try bench.wrong("b2") == [4])
  }

  @Test(
    "is not used when its manifest says what cannot be, with the right checksum",
    arguments: ["bytes_written", "stored_clusters"])
  func impossible(member: String) throws {
    let bench = try bench()
    let text = String(
      decoding: try bench.folder.bytes(of: "b1.json", limit: 1 << 16), as: UTF8.self)
    let body = try #require(text.split(separator: ",\"sha256\":\"").first)
      .dropFirst("{\"manifest\":".count)
    let forged = String(body).replacing(
      try Regex("\"\(member)\":[0-9]+"), with: "\"\(member)\":9223372036854775808")
    #expect(forged != body)
    let digest = SHA256.hexDigest(Array(forged.utf8))
    try bench.folder.replace(
      "b1.json", with: Array("{\"manifest\":\(forged),\"sha256\":\"\(digest)\"}\n".utf8))
    #expect(kind { _ = try bench.chain.manifest("b1") } == .mismatch)
  }

  @Test("is not used when its manifest says something else, in as good a form")
  func manifest() throws {
    let bench = try bench()
    let text = String(
      decoding: try bench.folder.bytes(of: "b1.json", limit: 1 << 16), as: UTF8.self)
    for (word, other) in [(#""device":"disk""#, #""device":"dusk""#), ("incremental", "full")] {
      #expect(text.contains(word))
      let parts = text.split(separator: word, maxSplits: 1, omittingEmptySubsequences: false)
      try bench.folder.replace("b1.json", with: Array(parts.joined(separator: other).utf8))
      for id in ["b1", "b2"] {
        guard case .corrupt? = kind({ _ = try PointReader(id, of: bench.chain) }) else {
          Issue.record("\(other) is taken")
          continue
        }
      }
    }
  }

  @Test(
    "is not used when its manifest, journal or header is another",
    arguments: [
      ("b1.json", UInt64(40)), ("b1.json", 200), ("b1.sums", 33), ("b1.sums", 45), ("b1.hds", 2),
      ("b1.hds", 44), ("b1.hds", 36),
    ])
  func metadata(file: String, offset: UInt64) throws {
    let bench = try bench()
    try bench.flip(file, at: offset)
    let source = ModelSource(bench.disk, wanted: [4])
    let manifest = bench.manifest(source)
    for found in [
      kind { _ = try PointReader("b2", of: bench.chain) },
      kind { _ = try PointCheck("b1", of: bench.chain) },
      kind { _ = try bench.chain.write(manifest, wanted: source.wanted) },
    ] {
      guard case .corrupt? = found else {
        Issue.record("\(file), byte \(offset): \(String(describing: found))")
        continue
      }
    }
    let reader = try PointReader("b0", of: bench.chain)
    #expect(bench.saved[0].disk.reads(like: try #require(try ModelDisk.values(of: reader))))
  }

  @Test("is listed as what it is")
  func listing() throws {
    let bench = try bench()
    let source = ModelSource(bench.disk, wanted: [4])
    _ = try bench.chain.write(bench.manifest(source, "begun"), wanted: source.wanted)
    for name in ["lost.hds", "torn.json.tmp", "notes.txt"] {
      _ = try bench.folder.create(name)
    }
    func states() throws -> [String: BackupPoint.State] {
      Dictionary(uniqueKeysWithValues: try bench.chain.points().map { ($0.id, $0.state) })
    }
    let listed = try states()
    #expect(listed["b0"] == .whole && listed["b1"] == .whole && listed["b2"] == .whole)
    #expect(listed["begun"] == .partial)
    for id in ["lost", "torn"] {
      guard case .damaged? = listed[id] else {
        Issue.record("\(id): \(String(describing: listed[id]))")
        continue
      }
      try bench.chain.remove(id)
    }
    try bench.chain.remove("begun")
    #expect(try states().count == 3)
    try bench.folder.rename("b1.sums", to: "elsewhere")
    #expect(try states()["b0"] == .whole)
    #expect(try states()["b1"] == .damaged("b1.sums is missing"))
    #expect(try states()["b2"] == .missingParent("b1"))
    #expect(bench.folder.contains("notes.txt"))
  }
}
