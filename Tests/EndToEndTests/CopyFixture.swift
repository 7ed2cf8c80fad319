import Foundation
import TestSupport
import Testing

/// A service with a disk `vm` of 48 MiB, and what tests of copies of it have in common.
struct CopyFixture {
  static let sizeMiB = 48

  let folder: TemporaryFolder
  let service: RunningService

  init(clusterBytes: Int = 1 << 16) throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    let made = try service.create(
      "vm", sizeBytes: Self.sizeMiB << 20, clusterBytes: clusterBytes)
    guard made.status == 201 else { throw Tool.Failure(description: made.text) }
  }

  func write(_ export: String, _ pattern: Int, _ places: String...) throws {
    let list = places.map { "-c 'write -P \(pattern) \($0)'" }.joined(separator: " ")
    try Tool.shell("qemu-io -f raw \(list) -c flush '\(service.uri(export))'")
  }

  /// - Returns: a raw file with what an export holds now.
  func save(_ export: String, _ name: String) throws -> String {
    let path = "\(folder.path)/\(name)"
    try Tool.shell("nbdcopy '\(service.uri(export))' '\(path)'")
    return path
  }

  func expect(_ export: String, is raw: String) throws {
    try Tool.shell("qemu-img compare -f raw -F raw '\(service.uri(export))' '\(raw)'", seconds: 120)
  }

  func snapshot(_ id: String) throws -> String {
    let reply = try service.post("/v1/devices/\(id)/snapshots", "{}")
    guard reply.status == 201, let guid = reply.json["uuid"] as? String else {
      throw Tool.Failure(description: reply.text)
    }
    return guid
  }

  /// QEMU and OpenVZ find nothing wrong with a disk of one image that nobody has.
  func judge(_ directory: String) throws {
    let folder = "\(service.images)/\(directory)"
    try QEMU.expectSound("\(folder)/root.hds")
    try OpenVZ.run("cd '\(folder)' && ploop check DiskDescriptor.xml")
  }

  func names(in folder: String) throws -> [String] {
    try Tool.shell("ls -A '\(service.images)/\(folder)' 2> /dev/null || true").output
      .split(separator: "\n").map(String.init)
  }

  // MARK: Jobs

  func job(_ body: String) throws -> String {
    let reply = try service.post("/v1/jobs", body)
    guard reply.status == 202, let id = reply.json["id"] as? String else {
      throw Tool.Failure(description: reply.text)
    }
    return id
  }

  /// - Parameters:
  ///   - members: of the parameters, beside `to`.
  ///   - id: of the new disk, its folder and its export.
  ///   - more: members of the request.
  func clone(
    _ device: String, _ members: String, to id: String, _ more: String = "",
    directoryMore: String = ""
  ) throws -> String {
    let comma = members.isEmpty ? "" : ","
    return try job(
      "{\"type\":\"clone\",\"device\":\"\(device)\",\"params\":{\(members)\(comma)\"to\":{\"id\":\"\(id)\",\"directory\":\"\(id)\",\"export\":\"\(id)\"\(directoryMore)}}\(more)}"
    )
  }

  @discardableResult
  func await(_ id: String, _ isMet: ([String: Any]) -> Bool) throws -> [String: Any] {
    try service.awaitJob(id, isMet)
  }

  /// - Parameter limit: bytes in a second from now on, if they are to be others; 0 for no limit.
  @discardableResult
  func end(of id: String, limit: Int? = nil) throws -> [String: Any] {
    if let limit { _ = try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":\(limit)}}") }
    return try service.endOfJob(id)
  }

  func doneBytes(_ job: [String: Any]) -> Int {
    (job["progress"] as? [String: Any])?["done_bytes"] as? Int ?? 0
  }

  func log(of id: String) throws -> [Substring] {
    try service.logOfJob(id)
  }
}
