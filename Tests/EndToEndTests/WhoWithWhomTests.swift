import Glibc
import PloopIO
import TestSupport
import Testing

/// The table of who may run with whom: what a device is doing or is, what is asked of it meanwhile, and
/// how that is answered. Each cell has a device of its own.
@Suite("Who may run with whom")
struct WhoWithWhomTests {
  /// What the device is, or what has it.
  enum State: String, CaseIterable, Sendable {
    case idle, mergingNewest, mergingOldest, deleting, hashing, suspended, readonly, connected
    case failed

    /// Whether a job has the device, which it then has until the end of the test: it is throttled.
    var job: String? {
      switch self {
      case .mergingNewest: "\"type\":\"merge\""
      case .mergingOldest: "\"type\":\"merge\",\"params\":{\"level\":0}"
      case .deleting: "\"type\":\"delete_snapshot\",\"params\":{\"snapshot\":\"ONE\"}"
      case .hashing: "\"type\":\"hash\""
      default: nil
      }
    }
  }

  enum Operation: String, CaseIterable, Sendable {
    case snapshot, switchTop, merge, deleteSnapshot, hash, grow, suspend, resume, relabel,
      detachSafe, detachHard, exportDisk, exportWriter, exportOldest, exportNewest, removeExport,
      attachTop, attachOldest, attachNewest, flip, addDelta, updateIndex, notifyMerged, track,
      checkpoint, pushBackup
  }

  enum Holder: Sendable { case job, device, export, descriptor }

  enum Answer: Sendable {
    case done(Int)
    /// Accepted, and what it waits for then; nil when nothing keeps it.
    case queued(for: String?)
    case refused(Int, String, by: Holder?)
  }

  /// What any state is answered with, where the rows below say nothing else.
  static let usual: [Operation: Answer] = [
    .snapshot: .done(201), .switchTop: .done(200), .merge: .queued(for: nil),
    .deleteSnapshot: .queued(for: nil), .hash: .queued(for: nil), .grow: .done(200),
    .suspend: .done(200), .resume: .done(200), .relabel: .done(200), .detachSafe: .done(204),
    .detachHard: .done(204),
    .exportDisk: .done(201), .exportWriter: .refused(409, "writer-exists", by: .export),
    .exportOldest: .done(201), .exportNewest: .done(201), .removeExport: .done(204),
    .attachTop: .refused(409, "image-in-use", by: .device), .attachOldest: .done(201),
    .attachNewest: .done(201), .flip: .refused(409, "not-suspended", by: nil),
    .addDelta: .refused(409, "descriptor-exists", by: .descriptor), .updateIndex: .done(200),
    .notifyMerged: .refused(409, "index-mismatch", by: nil), .track: .done(201),
    .checkpoint: .done(201), .pushBackup: .done(201),
  ]

  private static let held: [Operation: Answer] = [
    .snapshot: .refused(409, "device-busy", by: .job),
    .switchTop: .refused(409, "device-busy", by: .job),
    .grow: .refused(409, "device-busy", by: .job),
    .merge: .queued(for: "job"), .deleteSnapshot: .queued(for: "job"), .hash: .queued(for: "job"),
    .detachSafe: .refused(409, "device-busy", by: .job),
    .flip: .refused(409, "device-busy", by: .job),
    .addDelta: .refused(409, "device-busy", by: .job),
    .updateIndex: .refused(409, "device-busy", by: .job),
    .notifyMerged: .refused(409, "device-busy", by: .job),
    .track: .refused(409, "device-busy", by: .job),
    .pushBackup: .refused(409, "device-busy", by: .job),
  ]

  private static func busy(_ operations: Operation...) -> [Operation: Answer] {
    Dictionary(
      uniqueKeysWithValues: operations.map { ($0, .refused(409, "device-busy", by: .job)) })
  }

  static func rows(_ state: State) -> [Operation: Answer] {
    switch state {
    case .idle: [:]
    // What is merged is no longer there to be read; what lies below it is.
    case .mergingNewest, .deleting:
      held.merging(busy(.exportNewest, .attachNewest)) { $1 }
    // The newest builds on the oldest, and is what receives it.
    case .mergingOldest:
      held.merging(busy(.exportOldest, .attachOldest, .exportNewest, .attachNewest)) { $1 }
    case .hashing: held
    case .suspended:
      [
        .merge: .queued(for: "device"), .deleteSnapshot: .queued(for: "device"),
        .hash: .queued(for: "device"), .grow: .queued(for: "device"),
        .flip: .refused(409, "resume-not-prohibited", by: nil),
      ]
    case .readonly:
      [
        .grow: .refused(409, "device-read-only", by: nil),
        .snapshot: .refused(409, "device-read-only", by: nil),
        .switchTop: .refused(409, "device-read-only", by: nil),
        .merge: .refused(409, "device-read-only", by: nil),
        .deleteSnapshot: .refused(409, "device-read-only", by: nil), .exportWriter: .done(201),
        .flip: .refused(409, "device-read-only", by: nil),
        .notifyMerged: .refused(409, "device-read-only", by: nil),
        .track: .refused(409, "device-read-only", by: nil),
        .checkpoint: .refused(409, "device-read-only", by: nil),
        .pushBackup: .refused(409, "device-read-only", by: nil),
      ]
    case .connected:
      [
        .switchTop: .refused(409, "device-in-use", by: nil),
        .detachSafe: .refused(409, "device-in-use", by: nil),
        .removeExport: .refused(409, "export-in-use", by: nil),
      ]
    case .failed:
      Dictionary(
        uniqueKeysWithValues: [
          .snapshot, .switchTop, .merge, .deleteSnapshot, .grow, .suspend, .resume, .relabel,
          .exportDisk, .exportWriter, .exportOldest, .exportNewest, .flip, .addDelta, .updateIndex,
          .notifyMerged, .track, .checkpoint, .pushBackup,
        ].map { ($0, Answer.refused(409, "device-failed", by: nil)) }
      ).merging([
        .hash: .queued(for: "device"), .exportWriter: .refused(409, "device-failed", by: nil),
        .attachTop: .refused(404, "image-not-found", by: nil),
        .attachOldest: .refused(404, "image-not-found", by: nil),
        .attachNewest: .refused(404, "image-not-found", by: nil),
      ]) { $1 }
    }
  }

  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    let slots = try service.patch("/v1/queue", "{\"slots\":{\"total\":64,\"per_filesystem\":64}}")
    #expect(slots.status == 200, "\(slots.text)")
  }

  /// A disk with two snapshots, each of which holds something.
  private struct Disk {
    let id: String
    var oldest = ""
    var newest = ""
    var top = ""
    /// The job that has it.
    var job: String?
  }

  @Test("every cell of the table", arguments: State.allCases)
  func table(_ state: State) throws {
    var disks: [(Operation, Disk)] = []
    for operation in Operation.allCases {
      disks.append((operation, try make(operation.rawValue.lowercased())))
    }
    try bring(&disks, into: state)
    defer { if state == .connected { disconnect() } }
    for (operation, disk) in disks {
      let answer = try #require(Self.rows(state)[operation] ?? Self.usual[operation])
      let reply = try ask(operation, of: disk, patience: state == .suspended ? 0 : 60)
      try check(reply, is: answer, disk, "\(state), \(operation)")
      try checkJob(of: disk, after: operation, "\(state), \(operation)")
    }
  }

  private func make(_ id: String) throws -> Disk {
    var disk = Disk(id: id)
    let made = try service.create(id, sizeBytes: 4 << 20, clusterBytes: 1 << 16)
    #expect(made.status == 201, "\(made.text)")
    for round in 1...2 {
      try Tool.shell(
        "qemu-io -f raw -c 'write -P \(round) \(128 * round)k 64k' '\(service.uri(id))'")
      let reply = try service.post("/v1/devices/\(id)/snapshots", "{}")
      let guid = try #require(reply.json["uuid"] as? String, "\(reply.text)")
      if round == 1 { disk.oldest = guid } else { disk.newest = guid }
    }
    try Tool.shell("qemu-io -f raw -c 'write -P 3 512k 64k' '\(service.uri(id))'")
    let deltas = try service.get("/v1/devices/\(id)/deltas").json["items"] as? [[String: Any]]
    disk.top = try #require(deltas?.last?["path"] as? String)
    return disk
  }

  private func bring(_ disks: inout [(Operation, Disk)], into state: State) throws {
    for index in disks.indices {
      let disk = disks[index].1
      if let job = state.job?.replacing("ONE", with: disk.newest) {
        let reply = try service.post(
          "/v1/jobs", "{\"device\":\"\(disk.id)\",\"limits\":{\"bps\":1},\(job)}")
        let id = try #require(reply.json["id"] as? String, "\(reply.text)")
        disks[index].1.job = id
      }
    }
    for disk in disks.map(\.1) {
      if let job = disk.job {
        // Something was copied, and so nothing more is for a day.
        try wait("/v1/jobs/\(job)") {
          (($0["progress"] as? [String: Any])?["done_bytes"] as? Int ?? 0) > 0
        }
      }
      switch state {
      case .suspended:
        #expect(try service.patch("/v1/devices/\(disk.id)", "{\"suspended\":true}").status == 200)
      case .readonly:
        #expect(try service.delete("/v1/devices/\(disk.id)").status == 204)
        let reply = try service.post(
          "/v1/devices",
          "{\"id\":\"\(disk.id)\",\"descriptor\":\"\(disk.id)/DiskDescriptor.xml\",\"readonly\":true,\"export\":{\"name\":\"\(disk.id)\"}}"
        )
        #expect(reply.status == 201, "\(reply.text)")
      default: break
      }
    }
    switch state {
    case .connected: try connect(disks.map(\.1.id))
    case .failed:
      service.kill()
      try Tool.shell("mv '\(service.images)' '\(service.images)-away' && mkdir '\(service.images)'")
      try service.start()
    default: break
    }
  }

  /// One client that is inside of all exports until it is told to leave.
  private func connect(_ exports: [String]) throws {
    let uris = exports.map { "'\(service.uri($0))'" }.joined(separator: " ")
    try Tool.shell(
      """
      cd '\(folder.path)'; mkfifo leave; cat > client.py <<'END'
      import nbd, os, sys
      clients = []
      for uri in sys.argv[1:]:
          h = nbd.NBD(); h.connect_uri(uri); clients.append(h)
      open("in", "w")
      open("leave").read()
      END
      /usr/bin/python3 client.py \(uris) > client.out 2>&1 & echo $! > client.pid
      until [ -e in ]; do kill -0 $! || { cat client.out; exit 1; }; sleep 0.05; done
      """)
  }

  private func disconnect() {
    let left = try? Tool.shell(
      """
      cd '\(folder.path)'; echo now > leave
      while kill -0 $(cat client.pid) 2> /dev/null; do sleep 0.02; done
      """)
    #expect(left != nil)
  }

  /// - Parameter patience: seconds for which a disk that grows may be waited for.
  private func ask(
    _ operation: Operation, of disk: Disk, patience: Int
  ) throws -> RunningService.Reply {
    let path = "/v1/devices/\(disk.id)"
    func bare(_ guid: String) -> String { guid.filter { !"{}".contains($0) } }
    func job(_ words: String) throws -> RunningService.Reply {
      try service.post("/v1/jobs", "{\"device\":\"\(disk.id)\",\(words)}")
    }
    func export(_ words: String) throws -> RunningService.Reply {
      try service.post(
        "/v1/exports", "{\"name\":\"\(disk.id)-2\",\"device\":\"\(disk.id)\"\(words)}")
    }
    func attach(at guid: String) throws -> RunningService.Reply {
      try service.post(
        "/v1/devices",
        "{\"id\":\"\(disk.id)-2\",\"descriptor\":\"\(disk.id)/DiskDescriptor.xml\",\"at\":\"\(guid)\"}"
      )
    }
    switch operation {
    case .snapshot: return try service.post("\(path)/snapshots", "{}")
    case .switchTop:
      return try service.post(
        "\(path)/snapshots/\(bare(disk.newest))/switch", "{\"discard_top\":true}")
    case .merge: return try job("\"type\":\"merge\",\"params\":{\"snapshot\":\"\(disk.newest)\"}")
    case .deleteSnapshot: return try service.delete("\(path)/snapshots/\(bare(disk.oldest))")
    case .hash: return try job("\"type\":\"hash\"")
    case .grow:
      return try service.call("PATCH", path, "{\"size\":8388608}", ["Prefer: wait=\(patience)"])
    case .suspend: return try service.patch(path, "{\"suspended\":true}")
    case .resume: return try service.patch(path, "{\"suspended\":false}")
    case .relabel: return try service.patch(path, "{\"labels\":{\"a\":\"b\"}}")
    case .detachSafe: return try service.delete(path)
    case .detachHard: return try service.delete("\(path)?mode=hard")
    case .exportDisk: return try export(",\"readonly\":true")
    case .exportWriter: return try export("")
    case .exportOldest: return try export(",\"snapshot\":\"\(disk.oldest)\"")
    case .exportNewest: return try export(",\"snapshot\":\"\(disk.newest)\"")
    case .removeExport: return try service.delete("/v1/exports/\(disk.id)")
    case .attachTop: return try service.attach("\(disk.id)-2", [disk.top])
    case .attachOldest: return try attach(at: disk.oldest)
    case .attachNewest: return try attach(at: disk.newest)
    case .flip: return try service.post("\(path)/flip-upper-deltas", "")
    case .addDelta: return try service.post("\(path)/deltas", "{\"path\":\"\(disk.top)\"}")
    case .updateIndex: return try service.patch("\(path)/deltas/0", "{\"index\":[]}")
    case .notifyMerged:
      return try service.post("\(path)/deltas/0/notify-merged", "{\"direction\":\"forward\"}")
    case .track: return try service.post("\(path)/tracking", "{\"space\":\"virtual\"}")
    case .checkpoint: return try service.post("\(path)/checkpoints", "{\"name\":\"one\"}")
    case .pushBackup: return try service.post("\(path)/push-backup", "{\"uuid\":\"one\"}")
    }
  }

  private func check(
    _ reply: RunningService.Reply, is answer: Answer, _ disk: Disk, _ cell: String
  ) throws {
    switch answer {
    case .done(let status): #expect(reply.status == status, "\(cell): \(reply.text)")
    case .refused(let status, let code, let holder):
      #expect(reply.status == status && reply.code == code, "\(cell): \(reply.text)")
      let said = reply.json["holder"] as? [String: Any]
      let wanted: (String, String?)? =
        switch holder {
        case .job: ("job", disk.job)
        case .device: ("device", disk.id)
        case .export: ("export", disk.id)
        case .descriptor: ("descriptor", "main:\(disk.id)/DiskDescriptor.xml")
        case nil: nil
        }
      #expect(said?["kind"] as? String == wanted?.0, "\(cell): \(reply.text)")
      #expect(said?["id"] as? String == wanted?.1, "\(cell): \(reply.text)")
    case .queued(let blocker):
      #expect(reply.status == 202, "\(cell): \(reply.text)")
      guard reply.status == 202 else { return }
      let id = try #require(reply.json["id"] as? String)
      guard let blocker else {
        return try wait("/v1/jobs/\(id)") { $0["state"] as? String == "succeeded" }
      }
      try wait("/v1/jobs/\(id)") {
        Self.blockers($0) == [blocker] && $0["state"] as? String == "queued"
      }
    }
  }

  /// Whatever was asked, the job is where it was, or waits for its device.
  private func checkJob(of disk: Disk, after operation: Operation, _ cell: String) throws {
    guard let job = disk.job else { return }
    switch operation {
    case .suspend, .detachHard:
      try wait("/v1/jobs/\(job)") {
        $0["state"] as? String == "queued" && Self.blockers($0) == ["device"]
      }
    default:
      #expect(try service.get("/v1/jobs/\(job)").json["state"] as? String == "running", "\(cell)")
    }
  }

  private static func blockers(_ job: [String: Any]) -> [String] {
    ((job["waiting_for"] as? [[String: Any]]) ?? []).compactMap { $0["kind"] as? String }
  }

  private func wait(_ path: String, until isWanted: ([String: Any]) -> Bool) throws {
    let deadline = Deadline.after(seconds: 300)
    while true {
      let reply = try service.get(path)
      if isWanted(reply.json) { return }
      let isOver = ["failed", "cancelled"].contains(reply.json["state"] as? String)
      guard !deadline.hasPassed, !isOver else {
        throw Tool.Failure(description: "\(path): \(reply.text)")
      }
      poll(nil, 0, 20)
    }
  }
}
