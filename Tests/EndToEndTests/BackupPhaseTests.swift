import Foundation
import PloopIO
import TestSupport
import Testing

/// Each call of a backup, or of a restore, by which something becomes durable, with kill -9 before it.
@Suite("Backups, and kill -9 before each step", .serialized)
struct BackupPhaseTests {
  /// What is copied to.
  enum Kind: CaseIterable {
    case directory, raw, image, export

    var places: [String] {
      switch self {
      case .directory: ["/images/backups/"]
      case .raw, .image: ["/images/copies/", "/state/files/"]
      case .export: ["/state/exports/"]
      }
    }
  }

  private final class Bench {
    let mortal: MortalService
    let kind: Kind
    private let server: ForeignServer?
    var service: RunningService { mortal.service }
    var folder: String { mortal.folder.path }

    init(_ kind: Kind, places: [String]? = nil) throws {
      self.kind = kind
      mortal = try MortalService(places: places ?? kind.places)
      let place: String
      switch kind {
      case .directory: place = #""type":"directory","path":"backups""#
      case .raw: place = #""type":"file","path":"copies/out","format":"raw""#
      case .image: place = #""type":"file","path":"copies/out","format":"ploop1""#
      case .export: place = ""
      }
      server =
        kind == .export
        ? try ForeignServer.nbdkit(
          ["memory", "16M"], at: "\(mortal.folder.path)/images/nbdkit") : nil
      let words = server.map { "\"type\":\"nbd\",\"uri\":\"\($0.uri)\"" } ?? place
      let made = try service.post("/v1/targets", "{\"name\":\"to\",\(words)}")
      guard made.status == 201 else { throw Tool.Failure(description: made.text) }
      guard try service.create("vm", sizeBytes: 8 << 20, clusterBytes: 1 << 16).status == 201 else {
        throw Tool.Failure(description: "no disk")
      }
    }

    func write(_ pattern: Int, at mebibyte: Int) throws {
      try Tool.shell(
        "qemu-io -f raw -c 'write -P \(pattern) \(mebibyte)M 1M' -c flush '\(service.uri("vm"))'")
    }

    func begin(_ job: String) throws -> String {
      let reply = try service.post("/v1/jobs", job)
      guard let id = reply.json["id"] as? String else {
        throw Tool.Failure(description: reply.text)
      }
      return id
    }

    func end(of id: String) throws -> [String: Any] {
      while true {
        let job = try service.get("/v1/jobs/\(id)").json
        if job["finished_at"] is String { return job }
        _ = try service.get(
          "/v1/jobs/\(id)?after_revision=\(job["revision"] as? Int ?? 0)&wait=10")
      }
    }

    func backups() throws -> [[String: Any]] {
      try service.get("/v1/targets/to/backups").json["items"] as? [[String: Any]] ?? []
    }

    /// The disk `export` is as the disk `vm`.
    func expectSame(_ export: String, _ note: String) throws {
      let output = try Tool.shell(
        "qemu-img compare -f raw -F raw '\(service.uri(export))' '\(service.uri("vm"))'",
        check: false, seconds: 120
      ).output
      #expect(output.contains("identical"), "\(note): \(output)")
    }

    /// Everything that is kept beside the backup itself.
    func names() throws -> [String] {
      try Tool.shell(
        "cd '\(folder)' && ls -d images/copies/* images/backups/*/*/* state/files/*/* state/exports/*/* 2>/dev/null || true"
      ).output.split(separator: "\n").map { String($0.split(separator: "/").last ?? "") }
    }
  }

  private func sweep(
    _ bench: Bench, prepare: () throws -> String,
    check: (_ id: String, _ job: [String: Any], _ note: String) throws -> Void
  ) throws {
    try bench.mortal.sweep(prepare: prepare, end: bench.end, check: check)
  }

  @Test(
    "a backup comes to its end, and nothing else is left", arguments: Kind.allCases, [false, true])
  func backup(kind: Kind, isSnapshot: Bool) throws {
    let bench = try Bench(kind)
    var pattern = 1
    try bench.write(255, at: 7)
    try sweep(bench) {
      pattern += 1
      try bench.write(pattern, at: 2)
      var more = ""
      if isSnapshot {
        let made = try bench.service.post("/v1/devices/vm/snapshots", "{}")
        more = ",\"snapshot\":\"\(made.json["uuid"] as? String ?? "")\""
      }
      return
        "{\"type\":\"backup\",\"device\":\"vm\",\"params\":{\"target\":\"to\"\(more)}}"
    } check: { id, job, note in
      #expect(job["state"] as? String == "succeeded", "\(note): \(job)")
      let found = try bench.backups()
      #expect(found.count == 1 && found.first?["id"] as? String == id, "\(note): \(found)")
      #expect(found.first?["state"] as? String == "complete", "\(note): \(found)")
      let names = try bench.names()
      var known = Set(["\(id).json", "\(id).sums", "out", "lock"])
      if kind == .directory {
        known.formUnion(["\(id).hds", "DiskDescriptor.xml", "DiskDescriptor.xml.lck"])
      }
      #expect(Set(names).subtracting(known).isEmpty, "\(note): \(names)")
      let restored = try bench.end(
        of: bench.begin(
          "{\"type\":\"restore\",\"params\":{\"target\":\"to\",\"backup\":\"\(id)\",\"to\":{\"id\":\"r\",\"directory\":\"r\",\"export\":\"r\"}}}"
        ))
      #expect(restored["state"] as? String == "succeeded", "\(note): \(restored)")
      try bench.expectSame("r", note)
      #expect(try bench.service.delete("/v1/devices/r").status == 204)
      try Tool.shell("rm -r '\(bench.folder)/images/r'")
      #expect(try bench.service.delete("/v1/targets/to/backups/\(id)").status == 204)
      #expect(try bench.backups().isEmpty, "\(note)")
      let left = try bench.names()
      #expect(Set(left).isSubset(of: ["lock", "DiskDescriptor.xml.lck"]), "\(note): \(left)")
    }
  }

  @Test("a restore comes to its end, and nothing else is left", arguments: [false, true])
  func restore(isInPlace: Bool) throws {
    let bench = try Bench(.directory, places: [isInPlace ? "/images/q/" : "/images/r/"])
    let service = bench.service
    try bench.write(17, at: 2)
    let backup = try bench.begin(
      #"{"type":"backup","device":"vm","params":{"target":"to"}}"#)
    #expect(try bench.end(of: backup)["state"] as? String == "succeeded")
    let door = #""export":{"name":"q"}"#
    if isInPlace {
      #expect(
        try service.create("q", sizeBytes: 8 << 20, clusterBytes: 1 << 16).status == 201)
    }
    try sweep(bench) {
      let to =
        isInPlace
        ? #""into":"q/DiskDescriptor.xml""# : #""to":{"id":"r","directory":"r","export":"r"}"#
      if isInPlace {
        try Tool.shell("qemu-io -f raw -c 'write -P 3 0 8M' -c flush '\(service.uri("q"))'")
        #expect(try service.delete("/v1/devices/q").status == 204)
      }
      return
        "{\"type\":\"restore\",\"params\":{\"target\":\"to\",\"backup\":\"\(backup)\",\(to)}}"
    } check: { _, job, note in
      #expect(job["state"] as? String == "succeeded", "\(note): \(job)")
      if isInPlace {
        let attached = try service.post(
          "/v1/devices", "{\"id\":\"q\",\"descriptor\":\"q/DiskDescriptor.xml\",\(door)}")
        #expect(attached.status == 201, "\(note): \(attached.text)")
      }
      let id = isInPlace ? "q" : "r"
      try bench.expectSame(id, note)
      let names = try Tool.shell("ls '\(service.images)/\(id)'").output.split(separator: "\n")
        .filter { !$0.hasPrefix("DiskDescriptor.xml") && !$0.hasSuffix(".index-backup") }
      #expect(names.count == 1, "\(note): \(names)")
      guard !isInPlace else { return }
      #expect(try service.delete("/v1/devices/r").status == 204)
      try Tool.shell("rm -r '\(service.images)/r'")
    }
  }
}
