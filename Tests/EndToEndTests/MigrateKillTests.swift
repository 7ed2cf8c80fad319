import Foundation
import TestSupport
import Testing

/// Each call by which a disk that is moved becomes somebody else's, with kill -9 before it.
@Suite("Disks that are moved, and kill -9", .serialized)
struct MigrateKillTests {
  @Test(
    "the disk is ours until it is handed over, and then not any more", arguments: [false, true])
  func handsOver(isDetached: Bool) throws {
    let mortal = try MortalService(places: ["/state/"])
    let service = mortal.service
    #expect(try service.create("vm", sizeBytes: 8 << 20, clusterBytes: 1 << 16).status == 201)
    try Tool.shell("qemu-io -f raw -c 'write -P 17 2M 1M' -c flush '\(service.uri("vm"))'")
    let raw = "\(mortal.folder.path)/elsewhere"
    try Tool.shell("tr '\\0' x < /dev/zero | head -c 8388608 > '\(raw)'")
    let server = try ForeignServer.qemu(raw, at: "\(service.images)/peer")
    let body =
      "{\"type\":\"migrate\",\"device\":\"vm\",\"params\":{\"to\":{\"nbd\":\"\(server.uri)\"},\"max_downtime_ms\":60000,\"source\":\"\(isDetached ? "detached" : "suspended")\"}}"

    /// The disk is here and in use, and has something new.
    func prepare(_ round: Int) throws {
      if try service.get("/v1/devices/vm").status == 404 {
        let reply = try service.post(
          "/v1/devices",
          #"{"id":"vm","descriptor":"vm/DiskDescriptor.xml","export":{"name":"vm"}}"#)
        #expect(reply.status == 201, "\(reply.text)")
      }
      try Tool.shell(
        "qemu-io -f raw -c 'write -P \(20 + round) 4M 64k' -c flush '\(service.uri("vm"))'")
    }
    func begin(_ round: Int) throws -> String? {
      let reply = try service.post("/v1/jobs", body, ["Idempotency-Key: round\(round)"])
      return reply.json["id"] as? String
    }
    func end(_ id: String, _ note: String) throws {
      let done = try service.endOfJob(id)
      #expect(done["state"] as? String == "succeeded", "\(note): \(done)")
      let device = try service.get("/v1/devices/vm")
      guard !isDetached else {
        #expect(device.status == 404, "\(note): \(device.text)")
        try Tool.shell("rm -f '\(raw).here'")
        try QEMU.convertToRaw("\(service.images)/vm/root.hds", "\(raw).here")
        return try expectSameBytes("\(raw).here", raw, note)
      }
      #expect(device.json["suspended"] as? Bool == true, "\(note)")
      let holder = (device.json["prohibition"] as? [String: Any])?["holder"] as? String
      #expect(holder == "job:\(id)", "\(note)")
      let reply = try service.patch("/v1/devices/vm", #"{"suspended":false,"force":true}"#)
      #expect(reply.status == 200, "\(note): \(reply.text)")
      try Tool.shell("qemu-img compare -f raw -F raw '\(service.uri("vm"))' '\(raw)'", seconds: 120)
    }

    var calls = 0
    for round in 1...2 {
      try prepare(round)
      _ = try mortal.takeCalls()
      let id = try #require(try begin(round))
      _ = try service.endOfJob(id)
      calls = try mortal.takeCalls()
      try end(id, "undisturbed")
    }
    #expect(calls > 4)
    let rounds = ProcessInfo.processInfo.environment["PLOOPD_KILLS"].flatMap { Int($0) } ?? 8
    for kill in 0..<min(rounds, calls) {
      let (round, number) = (3 + kill, 1 + kill * calls / min(rounds, calls))
      let note = "killed before call \(number) of \(calls)"
      try prepare(round)
      try mortal.dieBefore(number)
      // The answer may be lost with the service.
      _ = try? begin(round)
      #expect(try service.waitForExit(seconds: 600) == 128 + 9)
      try service.start()
      let id = try #require(try begin(round), "\(note)")
      try end(id, note)
    }
  }
}
