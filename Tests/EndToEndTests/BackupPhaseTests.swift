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
    /// What a request for a target says of the place.
    let place: String
    private let server: ForeignServer?
    var service: RunningService { mortal.service }
    var folder: String { mortal.folder.path }

    init(_ kind: Kind, places: [String]? = nil, hasTarget: Bool = true) throws {
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
      self.place = server.map { "\"type\":\"nbd\",\"uri\":\"\($0.uri)\"" } ?? place
      if hasTarget { try makeTarget() }
      guard try service.create("vm", sizeBytes: 8 << 20, clusterBytes: 1 << 16).status == 201 else {
        throw Tool.Failure(description: "no disk")
      }
    }

    func makeTarget() throws {
      let made = try service.post("/v1/targets", "{\"name\":\"to\",\(place)}")
      guard made.status == 201 else { throw Tool.Failure(description: made.text) }
    }

    /// - Returns: the parameter of a request that names a snapshot of the disk as it is.
    func snapshot() throws -> String {
      let made = try service.post("/v1/devices/vm/snapshots", "{}")
      guard let uuid = made.json["uuid"] as? String else {
        throw Tool.Failure(description: made.text)
      }
      return "\"snapshot\":\"\(uuid)\""
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
    try backups(of: Bench(kind), isSnapshot: isSnapshot) { bench, id, note in
      try check(id, note, bench)
    }
  }

  @Test(
    "a backup to a place that its job alone names comes to its end, and is found by a target of the place",
    arguments: Kind.allCases)
  func oneShot(kind: Kind) throws {
    try backups(of: Bench(kind, hasTarget: false), isSnapshot: true) { bench, id, note in
      try bench.makeTarget()
      try check(id, note, bench)
      #expect(try bench.service.delete("/v1/targets/to").status == 204)
    }
  }

  private func backups(
    of bench: Bench, isSnapshot: Bool,
    check: (_ bench: Bench, _ id: String, _ note: String) throws -> Void
  ) throws {
    var pattern = 1
    try bench.write(255, at: 7)
    let hasTarget = try bench.service.get("/v1/targets/to").status == 200
    let to = hasTarget ? #""target":"to""# : "\"to\":{\(bench.place)}"
    try sweep(bench) {
      pattern += 1
      try bench.write(pattern, at: 2)
      let more = isSnapshot ? "," + (try bench.snapshot()) : ""
      return "{\"type\":\"backup\",\"device\":\"vm\",\"params\":{\(to)\(more)}}"
    } check: { id, job, note in
      #expect(job["state"] as? String == "succeeded", "\(note): \(job)")
      try check(bench, id, note)
    }
  }

  /// What is there is the one backup, whole, which is removed.
  private func check(_ id: String, _ note: String, _ bench: Bench) throws {
    let found = try bench.backups()
    #expect(found.count == 1 && found.first?["id"] as? String == id, "\(note): \(found)")
    #expect(found.first?["state"] as? String == "complete", "\(note): \(found)")
    let names = try bench.names()
    var known = Set(["\(id).json", "\(id).sums", "out", "lock", "place"])
    if bench.kind == .directory {
      known.formUnion(["\(id).hds", "DiskDescriptor.xml", "DiskDescriptor.xml.lck"])
    }
    #expect(Set(names).subtracting(known).isEmpty, "\(note): \(names)")
    try restore(id, note, bench)
    #expect(try bench.service.delete("/v1/targets/to/backups/\(id)").status == 204)
    #expect(try bench.backups().isEmpty, "\(note)")
    let left = try bench.names()
    #expect(
      Set(left).isSubset(of: ["lock", "place", "DiskDescriptor.xml.lck"]), "\(note): \(left)")
  }

  /// The disk is as a backup has it.
  private func restore(_ id: String, _ note: String, _ bench: Bench) throws {
    let restored = try bench.end(
      of: bench.begin(
        "{\"type\":\"restore\",\"params\":{\"target\":\"to\",\"backup\":\"\(id)\",\"to\":{\"id\":\"r\",\"directory\":\"r\",\"export\":\"r\"}}}"
      ))
    #expect(restored["state"] as? String == "succeeded", "\(note): \(restored)")
    try bench.expectSame("r", note)
    #expect(try bench.service.delete("/v1/devices/r").status == 204)
    try Tool.shell("rm -r '\(bench.folder)/images/r'")
  }

  @Test("an increment of a snapshot comes to its end on the chain that is there, and is one")
  func increment() throws {
    let bench = try Bench(.directory)
    var pattern = 1
    try bench.write(255, at: 7)
    func request() throws -> String {
      let snapshot = try bench.snapshot()
      return "{\"type\":\"backup\",\"device\":\"vm\",\"params\":{\"target\":\"to\",\(snapshot)}}"
    }
    let full = try bench.end(of: bench.begin(request()))
    #expect(full["state"] as? String == "succeeded")
    var ids = [full["id"] as? String]
    try sweep(bench) {
      pattern += 1
      try bench.write(pattern, at: 1 + pattern % 5)
      return try request()
    } check: { id, job, note in
      #expect(job["state"] as? String == "succeeded", "\(note): \(job)")
      let result = job["result"] as? [String: Any]
      #expect(result?["mode_used"] as? String == "incremental", "\(note)")
      #expect(result?["bytes_written"] as? Int == 1 << 20, "\(note)")
      ids.append(id)
      let found = try bench.backups()
      #expect(Set(found.map { $0["id"] as? String }) == Set(ids), "\(note)")
      #expect(found.allSatisfy { $0["state"] as? String == "complete" }, "\(note): \(found)")
      try restore(id, note, bench)
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
