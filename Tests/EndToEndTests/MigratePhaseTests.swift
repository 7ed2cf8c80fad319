import Foundation
import TestSupport
import Testing

/// Each call by which a service that gets a disk makes something durable, with kill -9 before it.
@Suite("Disks that are moved to another service, and kill -9 there", .serialized)
struct MigratePhaseTests {
  @Test("the disk comes there, with every byte, whenever the other service was killed")
  func handsOver() throws {
    let mortal = try MortalService(places: ["/state/", "/images/vm/"])
    let there = mortal.service
    let folder = try TemporaryFolder()
    let service = try RunningService(
      in: folder.path, ["--root", "peer=\(mortal.folder.path)"])
    let made = try service.post(
      "/v1/devices",
      #"{"id":"vm","create":{"directory":"main:vm","size":8388608,"cluster_size":65536},"export":{"name":"vm"}}"#
    )
    #expect(made.status == 201, "\(made.text)")
    try Tool.shell("qemu-io -f raw -c 'write -P 17 2M 1M' -c flush '\(service.uri("vm"))'")
    let raw = "\(folder.path)/raw"
    let body =
      #"{"type":"migrate","device":"vm","params":{"to":{"ploopd":{"api":"http+unix:///?socket=peer:api.sock","nbd":"nbd+unix:///?socket=peer:nbd.sock","directory":"vm","export":"vm"}},"max_downtime_ms":60000}}"#

    func begin(_ round: Int) throws -> String {
      try Tool.shell(
        "rm -f '\(raw)'; qemu-io -f raw -c 'write -P \(20 + round) 4M 64k' -c flush '\(service.uri("vm"))' && nbdcopy '\(service.uri("vm"))' '\(raw)'"
      )
      let reply = try service.post("/v1/jobs", body)
      return try #require(reply.json["id"] as? String, "\(reply.text)")
    }
    /// Looks at what is there, and brings it back.
    func check(_ id: String, _ note: String) throws {
      let done = try service.endOfJob(id)
      #expect(done["state"] as? String == "succeeded", "\(note): \(done)")
      let device = try there.get("/v1/devices/vm").json
      #expect(device["incoming"] is NSNull, "\(note): \(device)")
      let exports = device["exports"] as? [[String: Any]] ?? []
      #expect(exports.map { $0["name"] as? String } == ["vm"], "\(note): \(device)")
      let output = try Tool.shell(
        "qemu-img compare -f raw -F raw '\(there.uri("vm"))' '\(raw)'", check: false, seconds: 120
      ).output
      #expect(output.contains("identical"), "\(note): \(output)")
      #expect(try there.delete("/v1/devices/vm").status == 204, "\(note)")
      try Tool.shell("rm -r '\(there.images)/vm'")
      let back = try service.patch("/v1/devices/vm", #"{"suspended":false,"force":true}"#)
      #expect(back.status == 200, "\(note): \(back.text)")
    }

    var calls = 0
    for round in 1...2 {
      _ = try mortal.takeCalls()
      let id = try begin(round)
      _ = try service.endOfJob(id)
      calls = try mortal.takeCalls()
      try check(id, "undisturbed")
    }
    #expect(calls > 8)
    let rounds = ProcessInfo.processInfo.environment["PLOOPD_KILLS"].flatMap { Int($0) } ?? 8
    for kill in 0..<min(rounds, calls) {
      let number = 1 + kill * calls / min(rounds, calls)
      try mortal.dieBefore(number)
      let id = try begin(3 + kill)
      #expect(try there.waitForExit(seconds: 600) == 128 + 9)
      try there.start()
      try check(id, "killed before call \(number) of \(calls)")
    }
  }
}
