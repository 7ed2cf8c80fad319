import PloopDevice
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Disks whose index is still being checked")
struct UncheckedDiskTests {
  private let fixture: ServiceFixture
  private var socket: String { "\(fixture.folder.path)/nbd.sock" }

  /// No check ever begins, and what does not end in time is waited for longer than any test takes.
  init() async throws {
    var configuration = Service.Configuration()
    configuration.checks = CheckQueue(workerLimit: 0)
    configuration.quiesceSeconds = 300
    fixture = try ServiceFixture(configuration: configuration)
  }

  /// Begins a life of the service with a disk for each name; of the index of those in `unchecked` much was written.
  private func begin(_ names: [String], unchecked: [String]) async throws {
    for name in names {
      var create = AttachRequest.CreateRequest(directory: name, sizeBytes: 20 << 30)
      create.clusterBytes = 1 << 16
      var request = AttachRequest(id: name, source: .create(create))
      request.exportName = name
      _ = try await fixture.service.attach(request, keeping: nil)
    }
    try fixture.stop()
    for name in unchecked {
      try Tool.shell(
        "dd if=/dev/zero of='\(fixture.images)/\(name)/root.hds' bs=4096 seek=1 count=300 conv=notrunc 2>&1"
      )
    }
    try await fixture.restart()
    for name in names {
      #expect(try device(name).isChecked != unchecked.contains(name))
    }
    try fixture.service.serveNBD(on: .unix(path: socket))
  }

  private func device(_ name: String) throws -> Device {
    let controller = try fixture.service.controller(name)
    return try controller.device()
  }

  /// A client that writes, once its write has come to the service.
  private func write(to name: String) async throws {
    try Tool.shell(
      """
      cd '\(fixture.folder.path)' && cat > client.py <<'END'
      import nbd, sys
      h = nbd.NBD(); h.connect_uri(sys.argv[1])
      try: h.pwrite(b"x" * 4096, 0); print("written")
      except nbd.Error as e: print("failed:", e.errno)
      END
      /usr/bin/python3 client.py 'nbd+unix:///\(name)?socket=\(socket)' > client 2>&1 &
      echo $! > client.pid
      """)
    let deadline = Deadline.after(seconds: 120)
    while try fixture.service.clients(of: name).first?.requestsInFlight != 1 {
      try #require(!deadline.hasPassed)
      await Task.yield()
    }
  }

  /// What the client says at its end.
  private func clientsEnd() throws -> String {
    try Tool.shell(
      "cd '\(fixture.folder.path)'; tail --pid=$(cat client.pid) -s 0.02 -f /dev/null; cat client"
    ).output
  }

  private func isClosed(_ name: String) throws -> Bool {
    try Tool.shell("xxd -s 44 -l 4 -p '\(fixture.images)/\(name)/root.hds'").output == "00000000\n"
  }

  @Test("a hard detach does not wait for the writes that wait for the check")
  func detached() async throws {
    try await begin(["a"], unchecked: ["a"])
    try await write(to: "a")
    try await fixture.service.detach("a", mode: .hard, ifRevision: nil)
    #expect(try clientsEnd() == "failed: ESHUTDOWN\n")
    #expect(try isClosed("a"))
    try fixture.stop()
  }

  @Test("nor does the end of the service, which closes all disks, and gives no answer")
  func stopped() async throws {
    try await begin(["a", "b"], unchecked: ["a"])
    try await write(to: "a")
    #expect(try !isClosed("a") && !isClosed("b"))
    try fixture.stop()
    let end = try clientsEnd()
    #expect(end.hasPrefix("failed:") && !end.contains("ESHUTDOWN"), "\(end)")
    #expect(try isClosed("a") && isClosed("b"))
  }

  @Test("a job waits for the check with nothing held; the disk is detached all the same")
  func job() async throws {
    try await begin(["a"], unchecked: ["a"])
    var request = JobRequest(type: ResizeJob.type, device: "a")
    request.parameters["size"] = .number(21 << 30)
    let job = try await fixture.service.addJob(request, keeping: nil)
    let deadline = Deadline.after(seconds: 120)
    while try await fixture.service.job(job.record.id).waitingFor.isEmpty {
      try #require(!deadline.hasPassed)
      await Task.yield()
    }
    try await fixture.service.detach("a", mode: .safe, ifRevision: nil)
    #expect(try isClosed("a"))
    try fixture.stop()
  }

  @Test(
    "what a job would do is not known before, and whoever asks is told so at once",
    arguments: [CompactJob.type, CheckJob.type])
  func plan(type: String) async throws {
    try await begin(["a"], unchecked: ["a"])
    let code = try await fixture.code {
      _ = try await $0.planJob(JobRequest(type: type, device: "a"))
    }
    #expect(code == "drain-timeout")
    // It waits for the check as others do, and keeps nobody from the device.
    _ = try await fixture.service.addJob(JobRequest(type: type, device: "a"), keeping: nil)
    try await fixture.service.detach("a", mode: .hard, ifRevision: nil)
    #expect(try isClosed("a"))
    try fixture.stop()
  }
}
