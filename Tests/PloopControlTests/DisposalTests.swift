import PloopFormat
import TestSupport
import Testing

@testable import PloopControl

@Suite("Which snapshots may go")
struct DisposalTests {
  private let fixture: ServiceFixture

  init() throws { fixture = try ServiceFixture() }

  /// A snapshot on a branch that the disk has left: its files are no part of the disk's chain.
  private func branch() async throws -> GUID {
    try await fixture.create("vm")
    let base = try await fixture.snapshot("vm")
    let branch = GUID.random()
    _ = try await fixture.service.switchTop(
      "vm", to: base, keepingTopAs: branch.description, ifRevision: nil, keeping: nil)
    return branch
  }

  /// What looking says, and what a dry run and a request for a job are refused with.
  private func refusals(_ guid: GUID, of id: String = "vm") async throws -> [String?] {
    var request = JobRequest(type: "delete_snapshot", device: id)
    request.parameters["snapshot"] = .text(guid.description)
    return [
      try await fixture.service.snapshot(id, guid).snapshot.refusal,
      try await fixture.code { [request] service in
        _ = try await service.addJob(request, keeping: nil)
      },
    ]
  }

  /// Who is in the way of a device that wants to write a snapshot's own file.
  private func obstacle(to guid: GUID) async throws -> String? {
    let top = try await fixture.service.snapshot("vm", guid).snapshot
    let parent = try #require(top.parent)
    let base = try await fixture.service.snapshot("vm", parent).snapshot
    let request = AttachRequest(
      id: "thief", source: .deltas([base.path, top.path].map { .init(path: $0) }))
    do { _ = try await fixture.service.attach(request, keeping: nil) } catch let error
      as ServiceError
    {
      return "\(error.code.rawValue) \(error.holder?.kind ?? "") \(error.holder?.id ?? "")"
    }
    try await fixture.service.detach("thief", mode: .safe, ifRevision: nil)
    return nil
  }

  @Test("one behind an export whose door did not open again stays, and GET says so as DELETE does")
  func closedDoor() async throws {
    let branch = try await branch()
    var export = ExportRequest(name: "look", device: "vm")
    export.snapshot = branch
    _ = try await fixture.service.addExport(export, keeping: nil)
    let path = try await fixture.service.snapshot("vm", branch).snapshot.path
    let file = "\(fixture.images)/\(path.dropFirst("main:".count))"
    #expect(try await refusals(branch) == ["export-in-use", "export-in-use"])
    #expect(try await obstacle(to: branch) == "image-in-use export look")
    try fixture.stop()
    try Tool.shell("mv '\(file)' '\(fixture.folder.path)/away'")
    try await fixture.restart()
    try Tool.shell("mv '\(fixture.folder.path)/away' '\(file)'")
    #expect(try await refusals(branch) == ["export-in-use", "export-in-use"])
    #expect(try await obstacle(to: branch) == "image-in-use export look")
    try await fixture.service.removeExport("look", mode: .safe, ifRevision: nil)
    #expect(try await obstacle(to: branch) == nil)
    #expect(try await refusals(branch) == [nil, nil])
  }

  @Test("one that another device reads stays, and GET says so as DELETE does")
  func otherDevice() async throws {
    let branch = try await branch()
    _ = try await fixture.service.attach(
      AttachRequest(
        id: "reader",
        source: .descriptor(.init(path: "vm/DiskDescriptor.xml", snapshot: branch))), keeping: nil)
    #expect(try await refusals(branch) == ["image-in-use", "image-in-use"])
    #expect(try await refusals(branch, of: "reader") == ["device-read-only", "device-read-only"])
    try await fixture.service.detach("reader", mode: .safe, ifRevision: nil)
    #expect(try await refusals(branch) == [nil, nil])
  }
}
