import Foundation
import PloopIO
import TestSupport
import Testing

@Suite("Disks that are moved to OpenVZ's ploop")
struct MigrateStreamTests {
  private let fixture: CopyFixture
  private var service: RunningService { fixture.service }
  private var folder: String { fixture.folder.path }
  private var copy: String { "\(folder)/copy.hds" }

  init() throws { fixture = try CopyFixture() }

  /// Gives whoever connects to `ploop copy -d`, one after the other. It ends with this object.
  private final class Receiver {
    private let process: ChildProcess

    init(_ socket: String, _ copy: String, _ folder: String) throws {
      try Tool.shell(
        """
        cat > '\(folder)/receiver.py' <<'END'
        import os, socket, subprocess, sys
        s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(9)
        while True:
            c, _ = s.accept(); fd = str(c.fileno())
            # It makes a new file, or none.
            if os.path.exists(sys.argv[2]): os.remove(sys.argv[2])
            p = subprocess.Popen(["ploop", "copy", "-d", sys.argv[2], "-i", fd, "-f", fd], pass_fds=[c.fileno()])
            c.close()
            open(sys.argv[3] + "/receiver.pid", "w").write(str(p.pid))
            status = p.wait()
            open(sys.argv[3] + "/status.new", "w").write(str(status))
            os.rename(sys.argv[3] + "/status.new", sys.argv[3] + "/status")
        END
        """)
      process = try ChildProcess(
        ["/usr/bin/python3", "\(folder)/receiver.py", socket, copy, folder],
        output: "\(folder)/receiver.log", errors: "\(folder)/receiver.log")
      let deadline = Deadline.after(seconds: 120)
      while (try? Tool.shell("test -S '\(socket)'")) == nil {
        guard process.isRunning, !deadline.hasPassed else {
          throw Tool.Failure(description: try Tool.shell("cat '\(folder)/receiver.log'").output)
        }
      }
    }

    deinit { process.end() }
  }

  private func receiver() throws -> Receiver {
    try Receiver("\(service.images)/door", copy, folder)
  }

  private func migrate(_ more: String = "") throws -> String {
    try fixture.job(
      "{\"type\":\"migrate\",\"device\":\"vm\",\"params\":{\"to\":{\"stream\":\"unix:///?socket=main:door\"},\"max_downtime_ms\":60000}\(more)}"
    )
  }

  private func guest() throws -> MigrationGuest {
    try fixture.write("vm", 17, "0 12M", "40M 4M")
    return try MigrationGuest(
      service.uri("vm"), holding: try fixture.save("vm", "start"), in: "\(folder)/guest")
  }

  /// What the receiver has ended with.
  private func status() throws -> String {
    try Tool.shell(
      "until [ -e '\(folder)/status' ]; do sleep 0.02; done; cat '\(folder)/status'", seconds: 300
    ).output
  }

  @Test("while a guest writes: the image that it makes is closed, and holds every byte")
  func moves() throws {
    let receiver = try receiver()
    let guest = try guest()
    let id = try migrate()
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(try status() == "0")
    try guest.leave()
    try QEMU.convertToRaw(copy, "\(folder)/there")
    try guest.expect(in: "\(folder)/there")
    try OpenVZ.run("ploop check '\(copy)'")
    #expect(try service.get("/v1/devices/vm").json["suspended"] as? Bool == true)
    withExtendedLifetime(receiver) {}
  }

  @Test("a receiver that is lost gets all of it again, and one that is not there is waited for")
  func lost() throws {
    try fixture.write("vm", 17, "0 12M", "40M 4M")
    let before = try fixture.save("vm", "before")
    let id = try migrate(",\"limits\":{\"bps\":4096}")
    try fixture.await(id) { job in
      ((job["waiting_for"] as? [[String: Any]])?.first?["kind"] as? String) == "target"
    }
    let receiver = try receiver()
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    try Tool.shell("kill -9 $(cat '\(folder)/receiver.pid')")
    #expect(try status() != "0")
    try Tool.shell("rm '\(folder)/status'")
    let done = try fixture.end(of: id, limit: 0)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect((done["result"] as? [String: Any])?["restarted"] as? Bool == true, "\(done)")
    #expect(try status() == "0")
    try QEMU.convertToRaw(copy, "\(folder)/there")
    try expectSameBytes("\(folder)/there", before)
    withExtendedLifetime(receiver) {}
  }

  @Test("is cancelled, with the disk in use here, and no closed image there")
  func cancelled() throws {
    let receiver = try receiver()
    try fixture.write("vm", 17, "0 12M")
    let id = try migrate(",\"limits\":{\"bps\":4096}")
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    #expect(try status() != "0")
    #expect(try service.get("/v1/devices/vm").json["suspended"] as? Bool == false)
    try fixture.write("vm", 18, "0 1M")
    withExtendedLifetime(receiver) {}
  }

  @Test("addresses are those of somebody who listens")
  func refusals() throws {
    for (address, code) in [
      ("tcp://10.0.0.9", "value-impossible"), ("tcp://10.0.0.9:0", "value-impossible"),
      ("tcp://:9", "value-impossible"), ("tcp://a/b:9", "value-impossible"),
      ("10.0.0.9:9", "invalid-value"), ("unix:///?socket=/etc/x", "path-outside-root"),
      ("unix:///", "value-impossible"),
    ] {
      let reply = try service.post(
        "/v1/jobs",
        "{\"type\":\"migrate\",\"device\":\"vm\",\"params\":{\"to\":{\"stream\":\"\(address)\"}}}")
      #expect(reply.code == code, "\(address): \(reply.text)")
    }
  }
}
