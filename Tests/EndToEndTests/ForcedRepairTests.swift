import Foundation
import TestSupport
import Testing

@Suite("Repair by command and by job")
struct ForcedRepairTests {
  @Test("The command says what it would do, does what was seen, and nothing else")
  func command() throws {
    let fixture = try ImageCommandFixture()
    try fixture.makeImage("a.img")
    try fixture.patch("a.img", entry: 60, to: 2)
    let before = try fixture.sum("a.img")
    let said = try fixture.shell("ploopd image check --repair --force a.img", check: false)
    #expect(said.status == 2)
    #expect(said.output.contains("a.img: would copy: cluster 60: "), "\(said.output)")
    let report = try fixture.json("ploopd image check --json a.img")
    let repair = try #require(report["forced_repair"] as? [String: Any])
    let plan = try #require(repair["plan"] as? String)
    #expect(said.output.contains("--plan \(plan)"))
    #expect(repair["step_count"] as? Int == 1)
    #expect(try fixture.sum("a.img") == before, "nothing may be changed without a plan")
    for wrong in ["--plan x --repair --force", "--force", "--repair --plan \(plan)"] {
      #expect(try fixture.status("ploopd image check \(wrong) a.img") != 0)
    }
    #expect(try fixture.sum("a.img") == before, "nor with another one")

    let done = try fixture.shell("ploopd image check --repair --force --plan \(plan) a.img").output
    #expect(done.contains("repaired: ./a.img: saved header and index as a.img.index-backup-"))
    try fixture.shell("ploopd image check a.img && qemu-img check -f parallels a.img")
    // The second cluster has what it read before, and has it for itself.
    try fixture.shell("qemu-io -f parallels -c 'read -P 1 3840k 64k' a.img | grep -v pattern")
    try fixture.shell("qemu-io -f parallels -c 'discard 3840k 64k' a.img")
  }

  @Test("A job mends images that no device has, safely or by the plan of a check")
  func job() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    func check(_ parameters: String) throws -> RunningService.Reply {
      try service.post(
        "/v1/jobs", "{\"type\":\"check\",\"params\":{\(parameters)}}", ["Prefer: wait=60"])
    }
    func result(_ parameters: String) throws -> [String: Any] {
      let reply = try check(parameters)
      return try #require(reply.json["result"] as? [String: Any], "\(reply.text)")
    }
    try Tool.shell(
      """
      cd '\(service.images)' && qemu-img create -q -f parallels -o cluster_size=64k a.img 4M
      qemu-io -f parallels -c 'write -P 1 0 192k' a.img
      """)
    try Tool.shell("cd '\(service.images)' && truncate -s +100000 a.img")
    #expect(try result("\"image\":\"main:a.img\"")["verdict"] as? String == "repairable")
    let safe = try result("\"image\":\"main:a.img\",\"repair\":\"safe\"")
    #expect(safe["verdict"] as? String == "clean")
    #expect((safe["repairs"] as? [String])?.count == 1, "\(safe)")

    try Tool.shell(
      """
      cd '\(service.images)' && printf '\\377\\377\\377\\377' \
        | dd of=a.img bs=1 seek=68 conv=notrunc status=none
      """)
    let found = try result("\"image\":\"main:a.img\",\"repair\":\"safe\"")
    #expect(found["verdict"] as? String == "corrupt")
    #expect((found["repairs"] as? [String])?.isEmpty == true)
    let plan = try #require((found["forced_repair"] as? [String: Any])?["plan"] as? String)
    #expect(try check("\"image\":\"main:a.img\",\"repair\":\"force\"").code == "invalid-value")
    #expect(try check("\"image\":\"main:a.img\",\"plan\":\"x\"").code == "invalid-value")
    let other = try check("\"image\":\"main:a.img\",\"repair\":\"force\",\"plan\":\"x\"")
    #expect((other.json["error"] as? [String: Any])?["code"] as? String == "repair-plan-outdated")
    let mended = try result("\"image\":\"main:a.img\",\"repair\":\"force\",\"plan\":\"\(plan)\"")
    #expect(mended["verdict"] as? String == "clean", "\(mended)")
    let names = try Tool.shell("ls '\(service.images)'").output
    #expect(names.contains("a.img.lost-\(plan.prefix(12))"), "\(names)")

    // A device's own images are not repaired.
    #expect(try service.attach("vm", ["main:a.img"]).status == 201)
    let refused = try check("\"image\":\"main:a.img\",\"repair\":\"safe\"")
    #expect((refused.json["error"] as? [String: Any])?["code"] as? String == "image-in-use")
    let onDevice = try service.post(
      "/v1/jobs", "{\"type\":\"check\",\"device\":\"vm\",\"params\":{\"repair\":\"safe\"}}")
    #expect(onDevice.code == "invalid-value")
  }
}
