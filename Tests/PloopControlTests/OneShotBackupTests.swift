import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Backups to a place that the job alone names")
struct OneShotBackupTests {
  /// A request without a target.
  private func request(
    _ to: [String: JobValue], _ more: [String: JobValue] = [:]
  ) -> JobRequest {
    var request = JobRequest(type: "backup", device: "vm")
    request.parameters = ["to": .object(to)].merging(more) { $1 }
    return request
  }

  private func begin(
    _ bench: BackupServiceBench, _ to: [String: JobValue], _ more: [String: JobValue] = [:],
    _ change: (inout JobRequest) -> Void = { _ in }
  ) async throws -> String {
    var request = request(to, more)
    change(&request)
    return try await bench.fixture.service.addJob(request, keeping: nil).record.id
  }

  private func file(_ name: String, _ format: String = "raw") -> [String: JobValue] {
    ["type": .text("file"), "path": .text("copies/\(name)"), "format": .text(format)]
  }

  private func folder(_ path: String) -> [String: JobValue] {
    ["type": .text("directory"), "path": .text(path)]
  }

  private func names(_ bench: BackupServiceBench) throws -> [String] {
    try ImageFolder(path: "\(bench.fixture.images)/copies").names().filter { !$0.hasPrefix(".") }
      .sorted()
  }

  @Test(
    "a folder gets a chain that is attached by what the result names, and no checkpoint is kept")
  func directory() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<20)
    let plan = try await bench.fixture.service.planJob(request(folder("out/usb")))
    #expect(plan.mode == "full" && plan.clusters == 20)
    #expect(plan.reason == "the target has no backup of vm")
    // Only looked at.
    #expect(throws: IOError.self) { try ImageFolder(path: "\(bench.fixture.images)/out") }
    let id = try await begin(bench, folder("out/usb"))
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded, "\(String(describing: job.error))")
    #expect(job.result?["mode_used"] == .text("full"))
    #expect(job.result?["bytes_written"] == .number(20 << 16))
    let descriptor = "main:out/usb/vm/\(id)/DiskDescriptor.xml"
    #expect(job.result?["to"] == .text(descriptor))
    #expect(try bench.disk.checkpoints.isEmpty)
    let mark = try TargetMark.read(in: ImageFolder(path: "\(bench.fixture.images)/out/usb"))
    guard case .object(let to)? = job.parameters["to"] else {
      Issue.record("no place")
      return
    }
    #expect(to["path"] == .text("main:out/usb") && mark != nil)
    #expect(to["mark"] == mark.map(JobValue.text))
    var attach = AttachRequest(
      id: "copy", source: .descriptor(AttachRequest.DescriptorReference(path: descriptor)))
    attach.readonly = true
    _ = try await bench.fixture.service.attach(attach, keeping: nil)
    let copy = try bench.fixture.service.controller("copy").device()
    for cluster in 0..<64 {
      #expect(try copy.bytes(UInt64(cluster) << 16, 1) == [bench.model[cluster]])
    }
    // A snapshot needs no checkpoint to be known again, whatever the place is called.
    let first = try await bench.fixture.snapshot("vm")
    let full = try await bench.end(
      of: begin(bench, folder("out/usb"), ["snapshot": .text(first.description)]))
    #expect(full.result?["mode_used"] == .text("full"))
    try bench.write([3])
    let second = try await bench.fixture.snapshot("vm")
    let increment = try await bench.end(
      of: begin(bench, folder("out/usb"), ["snapshot": .text(second.description)]))
    #expect(increment.result?["mode_used"] == .text("incremental"))
    #expect(
      increment.result?["to"] == .text("main:out/usb/vm/\(full.id)/DiskDescriptor.xml"))
    // Whoever makes a target of the place finds all of them there.
    try await bench.target("usb", .directory(path: "main:out/usb"))
    let found = try await bench.fixture.service.backups(on: "usb", of: nil, after: nil, limit: 10)
    #expect(Set(found.items.map(\.id)) == [id, full.id, increment.id])
    #expect(found.items.allSatisfy { $0.state == .complete })
  }

  @Test(
    "a file is named once it is whole, and found again by whoever makes a target of it",
    arguments: ["raw", "ploop1"])
  func oneFile(format: String) async throws {
    let bench = try await BackupServiceBench()
    try bench.write([0, 5, 63])
    let state = bench.model
    let guid = try await bench.fixture.snapshot("vm")
    let id = try await begin(
      bench, file("vm.out", format), ["snapshot": .text(guid.description)],
      BackupServiceBench.halting)
    try await bench.halfway(id)
    #expect(try names(bench) == ["vm.out.\(id).part"])
    // Nobody takes half a file for an orphan.
    let orphans = try await bench.fixture.service.images(
      root: nil, state: .orphaned, after: nil, limit: 100)
    #expect(orphans.page.items.isEmpty)
    try bench.fixture.stop()
    try await bench.fixture.restart()
    try await bench.release(id)
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded && job.interruptions == 1)
    #expect(try await bench.log(of: id).contains { $0.hasPrefix("goes on at cluster ") })
    #expect(job.result?["to"] == .text("main:copies/vm.out"))
    #expect(try names(bench) == ["vm.out"])
    // It is known for a backup, though nothing names it any more.
    let kept = try await bench.fixture.service.images(
      root: nil, state: .orphaned, after: nil, limit: 100)
    #expect(kept.page.items.isEmpty)
    let again = try await bench.end(of: begin(bench, file("vm.out", format)))
    #expect(again.state == .failed && again.error?.code == "image-exists")
    try await bench.target(
      "one",
      .file(path: "main:copies/vm.out", format: format == "raw" ? .raw : .ploop))
    let source = try bench.fixture.service.source(id, on: "one")
    let buffer = AlignedBuffer(count: 1 << 16)
    for (cluster, value) in state.enumerated() {
      try source.read(into: buffer.region, from: UInt64(cluster))
      #expect(buffer.region.bytes.allSatisfy { $0 == value })
    }
  }

  @Test("a file that somebody else has put there meanwhile is not taken for the backup")
  func foreign() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let id = try await begin(bench, file("vm.out"), [:], BackupServiceBench.halting)
    try await bench.halfway(id)
    // What it notes its steps in cannot be opened, so it opens its file anew, until it can be.
    let images = bench.fixture.images
    let journal =
      try Tool.shell("find '\(images)/..' -name '\(id).sums'").output
      .split(separator: "\n").first.map(String.init) ?? ""
    try Tool.shell("mv '\(journal)' '\(images)/sums' && ln -s nowhere '\(journal)'")
    try await bench.release(id)
    _ = try await bench.await(id) { !$0.waitingFor.isEmpty }
    try Tool.shell("echo theirs > '\(images)/copies/vm.out' && mv -f '\(images)/sums' '\(journal)'")
    let job = try await bench.end(of: id)
    #expect(job.state == .failed && job.error?.code == "image-exists")
    #expect(try Tool.shell("cat '\(images)/copies/vm.out'").output == "theirs\n")
    // Nobody could find what was begun: it is gone.
    #expect(try names(bench) == ["vm.out"])
  }

  @Test("whoever says which folder it is to be has none made or marked")
  func marked() async throws {
    let bench = try await BackupServiceBench()
    let named = folder("usb").merging(["mark": .text("01AAAAAAAAAAAAAAAAAAAAAAAA")]) { $1 }
    #expect(try await bench.fixture.code { _ in _ = try await begin(bench, named) } != nil)
    try Tool.shell("mkdir '\(bench.fixture.images)/usb'")
    #expect(try await bench.fixture.code { _ in _ = try await begin(bench, named) } != nil)
    #expect(try ImageFolder(path: "\(bench.fixture.images)/usb").names().isEmpty)
  }

  @Test("an export is the same however its address is written")
  func exportNames() {
    func isSame(_ one: String, _ other: String) -> Bool {
      TargetPlace.nbd(uri: one).overlaps(.nbd(uri: other))
    }
    #expect(isSame("nbd://10.0.0.9/vol", "nbds://10.0.0.9:10809/v%6fl"))
    #expect(isSame("nbd://Host.example/a", "nbd://user@host.EXAMPLE/a"))
    #expect(isSame("nbd://[2001:db8::1]/a", "nbd://[2001:DB8::1]:10809/a"))
    #expect(isSame("nbd+unix:///a?socket=main:s", "nbds+unix:///a?x=y&socket=main%3As"))
    #expect(!isSame("nbd://10.0.0.9/vol", "nbd://10.0.0.9/Vol"))
    #expect(!isSame("nbd://10.0.0.9/vol", "nbd://10.0.0.9:10810/vol"))
    #expect(!isSame("nbd://10.0.0.9/vol", "nbd://10.0.0.8/vol"))
    #expect(!isSame("nbd+unix:///a?socket=main:s", "nbd+unix:///a?socket=main:t"))
  }

  @Test("a live disk is copied anew after an interruption, and a cancelled one leaves nothing")
  func live() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    for isCancelled in [false, true] {
      let id = try await begin(bench, file("\(isCancelled)"), [:], BackupServiceBench.halting)
      try await bench.halfway(id)
      if isCancelled {
        _ = try await bench.fixture.service.cancelJob(id, ifRevision: nil)
        #expect(try await bench.end(of: id).state == .cancelled)
      } else {
        try bench.fixture.stop()
        try await bench.fixture.restart()
        try await bench.release(id)
        let job = try await bench.end(of: id)
        #expect(job.state == .succeeded && job.result?["restarted"] == .flag(true))
      }
      #expect(try bench.disk.checkpoints.isEmpty)
    }
    #expect(try names(bench) == ["false"])
  }

  @Test("two jobs with the same place take turns, and nobody else gets it meanwhile")
  func turns() async throws {
    let bench = try await BackupServiceBench()
    try await bench.fixture.create("other")
    try bench.write(0..<64)
    let id = try await begin(bench, file("vm.out"), [:], BackupServiceBench.halting)
    try await bench.halfway(id)
    var second = request(file("vm.out"))
    second.device = "other"
    let other = try await bench.fixture.service.addJob(second, keeping: nil).record.id
    let waiting = try await bench.await(other) { !$0.waitingFor.isEmpty }
    #expect(waiting.waitingFor.map(\.kind) == [.target])
    #expect(waiting.waitingFor.first?.id == "main:copies/vm.out")
    for place in [
      TargetPlace.file(path: "main:copies/vm.out", format: .raw), .directory(path: "main:copies"),
    ] {
      let code = try await bench.fixture.code { _ in try await bench.target("late", place) }
      #expect(code == "target-exists")
    }
    var export = JobRequest(type: "export", device: "vm")
    export.parameters = [
      "to": .object(["image": .text("main:copies/vm.out"), "format": .text("raw")])
    ]
    let refused = try await bench.fixture.code { [export] service in
      _ = try await service.addJob(export, keeping: nil)
    }
    #expect(refused == "target-exists")
    try await bench.release(id)
    #expect(try await bench.end(of: id).state == .succeeded)
    #expect(try await bench.end(of: other).error?.code == "image-exists")
    try await bench.target("late", .file(path: "main:copies/vm.out", format: .raw))
  }

  @Test("two jobs with the same folder take turns, too, and the second one's chain is beside")
  func turnsInFolder() async throws {
    let bench = try await BackupServiceBench()
    try await bench.fixture.create("other")
    try bench.write(0..<64)
    let id = try await begin(bench, folder("out"), [:], BackupServiceBench.halting)
    try await bench.halfway(id)
    var second = request(folder("out"))
    second.device = "other"
    let other = try await bench.fixture.service.addJob(second, keeping: nil).record.id
    let waiting = try await bench.await(other) { !$0.waitingFor.isEmpty }
    #expect(waiting.waitingFor.map(\.kind) == [.target])
    #expect(waiting.waitingFor.first?.id == "main:out")
    try await bench.release(id)
    #expect(try await bench.end(of: id).state == .succeeded)
    #expect(try await bench.end(of: other).state == .succeeded)
  }

  @Test("what is known of backups that are gone, and of copies, is forgotten at a start")
  func forgotten() async throws {
    let bench = try await BackupServiceBench()
    try bench.write([0, 5, 63])
    for name in ["kept", "gone", "named"] {
      let job = try await bench.end(of: begin(bench, file(name, "ploop1")))
      #expect(job.state == .succeeded, "\(String(describing: job.error))")
    }
    try await bench.target("one", .file(path: "main:copies/named", format: .ploop))
    var export = JobRequest(type: "export", device: "vm")
    export.parameters = [
      "to": .object(["image": .text("main:copies/raw"), "format": .text("raw")])
    ]
    let copied = try await bench.fixture.service.addJob(export, keeping: nil).record.id
    #expect(try await bench.end(of: copied).state == .succeeded)
    // One that is not over goes on with what it has noted.
    let id = try await begin(bench, file("begun"), [:], BackupServiceBench.halting)
    try await bench.halfway(id)
    func folders(_ kind: String) throws -> Int {
      try ImageFolder(path: "\(bench.fixture.folder.path)/state/\(kind)").names().count
    }
    #expect(try folders("files") == 4 && folders("copies") == 1)
    try bench.fixture.stop()
    try Tool.shell("cd '\(bench.fixture.images)/copies' && rm gone && rm named begun.*.part")
    try await bench.fixture.restart()
    #expect(try folders("files") == 3 && folders("copies") == 0)
    try await bench.release(id)
    #expect(try await bench.end(of: id).state == .succeeded)
    let orphans = try await bench.fixture.service.images(
      root: nil, state: .orphaned, after: nil, limit: 100)
    #expect(orphans.page.items.isEmpty)
  }

  @Test("what cannot be such a place is refused, with a pointer, and nothing is made")
  func refusals() async throws {
    let bench = try await BackupServiceBench()
    for (to, more, code, pointer) in [
      (["path": .text("x")], [:], "invalid-value", "/params/to/type"),
      (["type": .text("tape"), "path": .text("x")], [:], "invalid-value", "/params/to/type"),
      (["type": .text("directory")], [:], "invalid-value", "/params/to/path"),
      (folder("x"), ["target": .text("nas")], "invalid-value", "/params/target"),
      (folder("../x"), [:], "path-outside-root", "/params/to/path"),
      (folder("none:x"), [:], "value-impossible", "/params/to/path"),
      (folder("backups/vm"), [:], "target-exists", "/params/to"),
      (file("x", "qcow2"), [:], "invalid-value", "/params/to/format"),
      (
        ["type": .text("nbd"), "uri": .text("http://host/")], [:], "invalid-value",
        "/params/to/uri"
      ),
      (
        ["type": .text("nbd"), "uri": .text("nbd+unix:///?socket=/run/x")], [:],
        "path-outside-root", "/params/to/uri"
      ),
      (
        [
          "type": .text("nbd"), "uri": .text("nbd://host/"),
          "tls": .object(["verify": .flag(false)]),
        ], [:], "value-impossible", "/params/to/tls"
      ),
      (
        folder("x").merging(["slots": .number(2)]) { $1 }, [:], "unknown-field",
        "/params/to/slots"
      ),
      (
        file("x"), ["mode": .text("incremental")], "increment-not-possible", nil
      ),
    ] as [([String: JobValue], [String: JobValue], String, String?)] {
      do {
        _ = try await begin(bench, to, more)
        Issue.record("\(to) is taken")
      } catch let error as ServiceError {
        #expect(error.code.rawValue == code && error.pointer == pointer, "\(to): \(error)")
      }
    }
    #expect(
      try ImageFolder(path: bench.fixture.images).names().filter { $0 == "x" }.isEmpty)
  }

  @Test("a folder that is another one when the job is begun again is not written")
  func replaced() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let guid = try await bench.fixture.snapshot("vm")
    let id = try await begin(
      bench, folder("out"), ["snapshot": .text(guid.description)], BackupServiceBench.halting)
    try await bench.halfway(id)
    try bench.fixture.stop()
    let images = bench.fixture.images
    try Tool.shell("mv '\(images)/out' '\(images)/away' && mkdir '\(images)/out'")
    try await bench.fixture.restart()
    let waiting = try await bench.await(id) { $0.waitingFor.first?.kind == .target }
    #expect(waiting.waitingFor.first?.id == "main:out")
    #expect(try ImageFolder(path: "\(images)/out").names().isEmpty)
    try Tool.shell("rmdir '\(images)/out' && mv '\(images)/away' '\(images)/out'")
    try await bench.release(id)
    #expect(try await bench.end(of: id).state == .succeeded)
    #expect(try await bench.log(of: id).contains { $0.hasPrefix("goes on at cluster ") })
  }
}
