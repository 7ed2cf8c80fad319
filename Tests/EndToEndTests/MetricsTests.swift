import PloopIO
import TestSupport
import Testing

@Suite("What Prometheus collects")
struct MetricsTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 64 << 20).status == 201)
  }

  /// The value behind a name with its labels; nil when there is none.
  private func value(_ name: String, in text: String) -> Double? {
    text.split(separator: "\n").first { $0.hasPrefix("\(name) ") }
      .flatMap { Double($0.dropFirst(name.count + 1)) }
  }

  private func scrape() throws -> String {
    let reply = try service.get("/metrics")
    #expect(reply.status == 200)
    let check = try Tool.shell(
      "promtool check metrics <<'END'\n\(reply.text)\nEND", check: false)
    #expect(check.status == 0 && check.output.isEmpty, "\(check.output)")
    return reply.text
  }

  @Test("names, help and types are as promtool wants them, and values are what was done")
  func clean() throws {
    try Tool.shell("qemu-io -f raw -c 'write 0 3M' -c 'read 0 1M' '\(service.uri("vm"))'")
    #expect(try service.post("/v1/devices/vm/checkpoints", "{\"name\":\"one\"}").status == 201)
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
    try Tool.shell("qemu-io -f raw -c 'write 8M 64k' -c 'write 0 4k' '\(service.uri("vm"))'")
    let merged = try service.post(
      "/v1/jobs", "{\"type\":\"merge\",\"device\":\"vm\",\"params\":{\"level\":0}}",
      ["Prefer: wait=60"])
    #expect(merged.json["state"] as? String == "succeeded", "\(merged.text)")
    #expect(try service.post("/v1/devices/vm/tracking", "{\"space\":\"virtual\"}").status == 201)
    try Tool.shell("qemu-io -f raw -c 'write 20M 2M' '\(service.uri("vm"))'")
    let text = try scrape()
    let values: [(String, Double)] = [
      ("ploopd_ready", 1), ("ploopd_devices{state=\"online\"}", 1),
      ("ploopd_device_size_bytes{device=\"vm\"}", 67_108_864),
      ("ploopd_device_deltas{device=\"vm\"}", 1),
      ("ploopd_device_write_bytes_total{device=\"vm\"}", 5_312_512),
      ("ploopd_device_read_bytes_total{device=\"vm\"}", 1_048_576),
      ("ploopd_device_io_errors_total{device=\"vm\",op=\"read\"}", 0),
      ("ploopd_device_cow_clusters_total{device=\"vm\"}", 1),
      ("ploopd_device_condition{device=\"vm\",type=\"Ready\"}", 1),
      ("ploopd_tracking_dirty_clusters{device=\"vm\"}", 2),
      ("ploopd_checkpoint_dirty_bytes{device=\"vm\",checkpoint=\"one\"}", 4_194_304),
      ("ploopd_checkpoint_consistent{device=\"vm\",checkpoint=\"one\"}", 1),
      ("ploopd_job_duration_seconds_count{type=\"merge\"}", 1),
      ("ploopd_jobs_finished_total{type=\"merge\",outcome=\"succeeded\"}", 1),
      ("ploopd_nbd_clients{export=\"vm\",device=\"vm\"}", 0),
    ]
    for (name, wanted) in values { #expect(value(name, in: text) == wanted, "\(name)") }
    #expect(value("ploopd_db_commit_seconds_count", in: text) ?? 0 > 3)
    #expect(value("process_open_fds", in: text) ?? 0 > 5)
    #expect(value("process_resident_memory_bytes", in: text) ?? 0 > 1_000_000)
    #expect(value("ploopd_device_io_seconds_count{device=\"vm\",op=\"read\"}", in: text) ?? 0 > 0)
    #expect(value("ploopd_device_pauses_total{device=\"vm\"}", in: text) ?? 0 >= 3)
    // The mark of a region before its first write.
    #expect(value("ploopd_device_recording_waits_total{device=\"vm\"}", in: text) ?? 0 > 0)
  }

  @Test("a disk's limits are seen, and how long its clients have waited for them")
  func throttle() throws {
    func limit(_ rates: String) throws {
      #expect(try service.patch("/v1/devices/vm", "{\"throttle\":\(rates)}").status == 200)
    }
    try limit("{\"write_bps\":1073741824,\"read_iops\":2}")
    // The second of three has to wait at least.
    try Tool.shell(
      "qemu-io -f raw -c 'read 0 4k' -c 'read 4k 4k' -c 'read 8k 4k' '\(service.uri("vm"))'",
      seconds: 300)
    var text = try scrape()
    let device = "ploopd_device_throttle"
    #expect(
      value("\(device)_bytes_per_second{device=\"vm\",op=\"write\"}", in: text) == 1_073_741_824)
    #expect(value("\(device)_bytes_per_second{device=\"vm\",op=\"read\"}", in: text) == nil)
    #expect(value("\(device)_ops_per_second{device=\"vm\",op=\"read\"}", in: text) == 2)
    let waits = try #require(value("\(device)_waits_total{device=\"vm\",op=\"read\"}", in: text))
    let seconds = value("\(device)_wait_seconds_total{device=\"vm\",op=\"read\"}", in: text)
    #expect(waits > 0 && seconds ?? 0 > 0)
    #expect(value("\(device)_waits_total{device=\"vm\",op=\"write\"}", in: text) == 0)
    let told = try service.get("/v1/devices/vm/stats").json
    #expect(told["throttle_read_waits"] as? Double ?? 0 >= waits)
    try limit("null")
    text = try scrape()
    #expect(value("\(device)_ops_per_second{device=\"vm\",op=\"read\"}", in: text) == nil)
  }

  @Test("what jobs back up is counted, and the last instant is seen")
  func backupJob() throws {
    try Tool.shell("qemu-io -f raw -c 'write 0 4M' '\(service.uri("vm"))'")
    #expect(
      try service.post(
        "/v1/targets", "{\"name\":\"nas\",\"type\":\"directory\",\"path\":\"backups\"}"
      ).status == 201)
    let request = "{\"type\":\"backup\",\"device\":\"vm\",\"params\":{\"target\":\"nas\"}"
    let done = try service.post("/v1/jobs", request + "}", ["Prefer: wait=60"])
    #expect(done.json["state"] as? String == "succeeded", "\(done.text)")
    let text = try scrape()
    let bytes = "ploopd_backup_bytes_total{target=\"nas\",direction="
    #expect(value(bytes + "\"read\"}", in: text) == 4_194_304)
    #expect(value(bytes + "\"written\"}", in: text) == 4_194_304)
    let last = "ploopd_device_last_backup_timestamp_seconds{device=\"vm\",target=\"nas\"}"
    #expect(value(last, in: text) ?? 0 > 1_700_000_000)
    try awaitSample("ploopd_target_up{target=\"nas\"}", 1)
    // Somebody unmounts it; nobody knows before it is looked at again.
    try Tool.shell("mv '\(service.folder)/images/backups' '\(folder.path)/elsewhere'")
    #expect(try service.get("/v1/targets/nas").status == 200)
    try awaitSample("ploopd_target_up{target=\"nas\"}", 0)
    try Tool.shell("mv '\(folder.path)/elsewhere' '\(service.folder)/images/backups'")
    try Tool.shell("qemu-io -f raw -c 'write 0 4M' '\(service.uri("vm"))'")
    _ = try service.post("/v1/jobs", request + ",\"limits\":{\"bps\":65536}}")
    while try value("ploopd_push_backup_clusters{device=\"vm\"}", in: scrape()) != 4 {}
  }

  private func awaitSample(_ name: String, _ wanted: Double) throws {
    let deadline = Deadline.after(seconds: 120)
    while try value(name, in: scrape()) != wanted {
      guard !deadline.hasPassed else { throw Tool.Failure(description: "\(name) is not \(wanted)") }
    }
  }

  @Test("what nobody needs beneath a root is counted in bytes")
  func orphans() throws {
    try Tool.shell("cp '\(service.folder)/images/vm/'*.hds '\(service.folder)/images/lost.hds'")
    // Looked at now; the collector shows what was found.
    let listing = try service.get("/v1/images?state=orphaned")
    let bytes = try #require(
      (listing.json["items"] as? [[String: Any]])?.first?["disk_bytes"] as? Double,
      "\(listing.text)")
    try awaitSample("ploopd_orphan_bytes{root=\"main\"}", bytes)
  }

  @Test("a backup and the guest that waits for it are seen, and gone when it is over")
  func backup() throws {
    let path = "/v1/devices/vm/push-backup"
    try Tool.shell("qemu-io -f raw -c 'write 0 4M' '\(service.uri("vm"))'")
    let started = try service.post(path, "{\"uuid\":\"b\",\"on_deadline\":\"wait\"}")
    #expect(started.status == 201, "\(started.text)")
    try startClient(
      folder, service.uri("vm"),
      """
      open("in", "w").close()
      h.pwrite(b"x" * 4096, 0)
      open("out", "w").close()
      """)
    var text = ""
    repeat {
      text = try scrape()
    } while value(
      "ploopd_push_backup_blocked_writes{device=\"vm\"}", in: text) != 1
    #expect(value("ploopd_push_backup_clusters{device=\"vm\"}", in: text) == 64)
    let done = try service.post(
      "\(path)/confirm", "{\"uuid\":\"b\",\"ranges\":[{\"cluster\":0,\"count\":60}]}")
    #expect(done.json["remaining"] as? Int == 4, "\(done.text)")
    try Tool.shell("until [ -e '\(folder.path)/out' ]; do sleep 0.02; done")
    text = try scrape()
    #expect(value("ploopd_push_backup_remaining_clusters{device=\"vm\"}", in: text) == 4)
    #expect(value("ploopd_push_backup_longest_wait_seconds{device=\"vm\"}", in: text) ?? 0 > 0)
    #expect(value("ploopd_device_recording_waits_total{device=\"vm\"}", in: text) == 1)
    #expect(
      value("ploopd_device_recording_wait_seconds_total{device=\"vm\"}", in: text) ?? 0 > 0)
    #expect(value("ploopd_device_backup_wait_seconds_total{device=\"vm\"}", in: text) ?? 0 > 0)
    #expect(try service.delete("\(path)?uuid=b&outcome=abort").status == 200)
    #expect(try !scrape().contains("push_backup"))
  }
}
