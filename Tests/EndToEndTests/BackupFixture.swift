import Foundation
import TestSupport
import Testing

/// A service with a target, and a disk of which two points are stored there.
struct BackupFixture {
  static let sizeMiB = 48

  let folder: TemporaryFolder
  let service: RunningService
  /// Where the target lies.
  var store: String { "\(service.images)/backups" }
  var chain: String { "\(store)/vm/b1" }

  /// - Parameter images: of a file system of its own, where the disks' folder is to lie on one.
  init(_ folder: TemporaryFolder? = nil) throws {
    self.folder = try folder ?? TemporaryFolder()
    service = try RunningService(in: self.folder.path)
    let made = try service.post(
      "/v1/targets", #"{"name":"nas","type":"directory","path":"backups"}"#)
    guard made.status == 201 else { throw Tool.Failure(description: made.text) }
  }

  /// Stores `b1`, a full one of 40 MiB, and `b2`, in which 1 MiB is other, 1 MiB is zero, 1 MiB is new.
  func storeTwo() throws {
    let sizeBytes = Self.sizeMiB << 20
    guard try service.create("vm", sizeBytes: sizeBytes, clusterBytes: 1 << 16).status == 201 else {
      throw Tool.Failure(description: "no disk")
    }
    try store(["write -P 17 0 20M", "write -P 18 22M 20M"], as: "b1", parent: nil)
    try store(
      ["write -P 19 3M 1M", "write -z 5M 1M", "write -P 20 44M 1M"], as: "b2", parent: "b1",
      changed: [3, 5, 44].map { $0 << 20..<($0 + 1) << 20 })
  }

  /// Writes to the disk, and stores what it holds then.
  ///
  /// - Parameter changed: what may be other than in the parent; nil for all of it.
  func store(
    _ commands: [String], as id: String, parent: String?, changed: [Range<UInt64>]? = nil
  ) throws {
    if try service.get("/v1/devices/vm").status == 404 { try attach() }
    let list = (commands + ["flush"]).map { "-c '\($0)'" }.joined(separator: " ")
    try Tool.shell("qemu-io -f raw \(list) '\(service.uri("vm"))'")
    guard try service.delete("/v1/devices/vm").status == 204 else {
      throw Tool.Failure(description: "the disk cannot be detached")
    }
    let image = "\(service.images)/vm/root.hds"
    try QEMU.convertToRaw(image, raw(id))
    try StoredBackup.store(
      image: image, in: store, device: "vm", chain: "b1", id: id, parent: parent,
      changed: changed)
  }

  func attach() throws {
    let reply = try service.post(
      "/v1/devices", #"{"id":"vm","descriptor":"vm/DiskDescriptor.xml","export":{"name":"vm"}}"#)
    guard reply.status == 201 else { throw Tool.Failure(description: reply.text) }
  }

  /// What a point has to hold, as a raw file.
  func raw(_ id: String) -> String { "\(folder.path)/\(id).raw" }

  func expect(_ export: String, holds id: String) throws {
    try Tool.shell(
      "qemu-img compare -f raw -F raw '\(service.uri(export))' '\(raw(id))'", seconds: 120)
  }

  func backups(_ query: String = "") throws -> [[String: Any]] {
    try service.get("/v1/targets/nas/backups\(query)").json["items"] as? [[String: Any]] ?? []
  }

  func backup(_ id: String) throws -> [String: Any] {
    try service.get("/v1/targets/nas/backups/\(id)").json
  }

  // MARK: Jobs

  func job(_ type: String, _ parameters: String, _ more: String = "") throws -> String {
    let reply = try service.post(
      "/v1/jobs", "{\"type\":\"\(type)\",\"params\":{\"target\":\"nas\",\(parameters)}\(more)}")
    guard reply.status == 202, let id = reply.json["id"] as? String else {
      throw Tool.Failure(description: reply.text)
    }
    return id
  }

  func restore(_ backup: String, to id: String, _ more: String = "") throws -> String {
    try job(
      "restore",
      "\"backup\":\"\(backup)\",\"to\":{\"id\":\"\(id)\",\"directory\":\"\(id)\",\"export\":\"\(id)\"}",
      more)
  }

  @discardableResult
  func await(_ id: String, _ isMet: ([String: Any]) -> Bool) throws -> [String: Any] {
    try service.awaitJob(id, isMet)
  }

  @discardableResult
  func end(of id: String) throws -> [String: Any] { try service.endOfJob(id) }

  func doneBytes(_ job: [String: Any]) -> Int {
    (job["progress"] as? [String: Any])?["done_bytes"] as? Int ?? 0
  }

  func log(of id: String) throws -> [Substring] {
    try service.logOfJob(id)
  }
}
