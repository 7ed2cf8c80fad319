internal import Glibc
internal import PloopIO
internal import TestSupport

/// Makes images and serves them, each peer as its users would start it, on Unix sockets in one folder.
final class Servers {
  let folder: String
  private let temporary: TemporaryFolder
  private var services: [Peer: RunningService] = [:]
  private let programs: [Peer: String]
  private var count = 0

  /// - Parameters:
  ///   - parent: where the folder for images is made; it is removed in the end.
  ///   - programs: the ploopd to measure, and the one to compare it with.
  init(beneath parent: String, programs: [Peer: String]) throws {
    temporary = try TemporaryFolder(beneath: parent)
    folder = temporary.path
    self.programs = programs
  }

  /// A new name for a file of this peer.
  func path(_ peer: Peer, _ name: String) throws -> String {
    count += 1
    let parent = peer.isPloopd ? try service(peer).images : folder
    return "\(parent)/\(name)-\(count).\(peer.suffix)"
  }

  /// A name that nothing of this run has.
  func newName(_ prefix: String) -> String {
    count += 1
    return "\(prefix)\(count)"
  }

  func service(_ peer: Peer) throws -> RunningService {
    if let service = services[peer] { return service }
    guard let program = programs[peer] else { throw BenchFailure("no program for \(peer)") }
    let service = try RunningService(
      in: "\(folder)/\(peer.rawValue)", program: program, logLevel: "info")
    services[peer] = service
    return service
  }

  /// Makes an empty image with clusters of 1 MiB, where the format has clusters.
  func make(_ peer: Peer, _ path: String, sizeBytes: Int, backing: String? = nil) throws {
    switch peer {
    case .ploopd, .base:
      try Tool.shell("'\(programs[peer] ?? "")' image create '\(path)' --size \(sizeBytes)")
    case .qemu, .qemuRing:
      try Tool.shell("qemu-img create -q -f parallels -o cluster_size=1M '\(path)' \(sizeBytes)")
    case .qcow2:
      let below = backing.map { "-b '\($0)' -F qcow2" } ?? ""
      try Tool.shell(
        "qemu-img create -q -f qcow2 -o cluster_size=1M \(below) '\(path)' \(sizeBytes)")
    case .nbdkit, .nbdServer: try Tool.shell("truncate -s \(sizeBytes) '\(path)'")
    case .null: break
    }
  }

  /// Waits until the file system has written what is dirty, so that nobody is measured while what
  /// somebody else wrote is on its way to the disk.
  func settle() throws { try Tool.shell("sync -f '\(folder)'", seconds: 300) }

  func remove(_ path: String) throws { try Tool.shell("rm -f '\(path)'") }

  /// Serves a chain; other peers than ploopd know a chain by its top.
  func serve(_ peer: Peer, _ files: [String], name: String? = nil) throws -> Contender {
    guard let top = files.last else { throw BenchFailure("no file to serve") }
    if peer.isPloopd { return try attach(peer, files, name) }
    count += 1
    let socket = "\(folder)/s\(count)"
    var export = ""
    var words: [String]
    switch peer {
    case .qemu, .qemuRing, .qcow2:
      let format = peer == .qcow2 ? "qcow2" : "parallels"
      let engine = peer == .qemuRing ? "io_uring" : "threads"
      words = [
        "qemu-nbd", "-f", format, "--aio=\(engine)", "--cache=writeback", "--discard=unmap", "-k",
        socket, "-t", "-e", "16", top,
      ]
    case .nbdkit: words = ["nbdkit", "-f", "-U", socket, "-t", "16", "file", top]
    case .nbdServer:
      export = "disk"
      try Tool.shell(
        "printf '[generic]\\nunixsock = %s\\n[disk]\\nexportname = %s\\ntrim = true\\n' '\(socket)' '\(top)' >'\(socket).conf'"
      )
      // It leaves its process group, as daemons do; in a namespace of its own it ends with us.
      words = [
        "unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "bash", "-c",
        "PATH=$PATH:/usr/sbin nbd-server -C '\(socket).conf' -p '\(socket).pid' && exec sleep infinity",
      ]
    case .null:
      words = [RunningService.builtProgram("bench"), "null-server", socket]
    case .ploopd, .base: words = []
    }
    return try run(peer, name: name, export: export, files: files, socket: socket, words)
  }

  /// Starts somebody else's server.
  ///
  /// - Parameters:
  ///   - place: the folder of its socket, if not the one of all.
  ///   - words: gets the path of its socket.
  func run(
    _ peer: Peer, export: String, files: [String], in place: String? = nil,
    _ words: (_ socket: String) -> [String]
  ) throws -> Contender {
    count += 1
    let socket = "\(place ?? folder)/s\(count)"
    return try run(peer, name: nil, export: export, files: files, socket: socket, words(socket))
  }

  private func run(
    _ peer: Peer, name: String?, export: String, files: [String], socket: String, _ words: [String]
  ) throws -> Contender {
    var words = words
    words[0] = try Tool.shell("PATH=$PATH:/usr/sbin:/bin command -v '\(words[0])'").output
      .trimmingNewline
    let child = try ChildProcess(words, output: "\(socket).log", errors: "\(socket).log")
    let address = NBDAddress(door: .unix(socket), export: export)
    try wait(for: address, child, log: "\(socket).log")
    return Contender(
      peer, name: name, address, process: peer == .nbdServer ? nil : child.number, files: files
    ) {
      if peer != .nbdServer { child.signal(SIGTERM) } else { child.end() }
      // What a peer does with SIGTERM is its own; it has to go.
      if peer != .nbdServer, (try? child.wait(seconds: 20)) == nil { child.end() }
      try Tool.shell("rm -f '\(socket)'*")
    }
  }

  private func attach(_ peer: Peer, _ files: [String], _ name: String?) throws -> Contender {
    let service = try service(peer)
    count += 1
    let id = "d\(count)"
    let names = files.map { String($0.dropFirst(service.images.count + 1)) }
    let reply = try service.attach(id, names)
    guard reply.status == 201 else { throw BenchFailure("attach: \(reply.text)") }
    return Contender(
      peer, name: name, NBDAddress(door: .unix(service.nbdSocket), export: id),
      process: service.process, files: files
    ) {
      let reply = try service.delete("/v1/devices/\(id)?mode=safe")
      guard reply.status == 204 else { throw BenchFailure("detach: \(reply.text)") }
    }
  }

  // MARK: Changes of a chain, of ploopd only

  /// - Returns: milliseconds for which requests waited, and from the request to its answer.
  func snapshot(_ contender: Contender) throws -> (pause: Double, whole: Double) {
    try Servers.snapshot(service(.ploopd), "/v1/devices/\(contender.address.export)")
  }

  static func snapshot(
    _ service: RunningService, _ device: String
  ) throws -> (pause: Double, whole: Double) {
    let start = monotonicNanoseconds()
    let reply = try service.post("\(device)/snapshots", "{}")
    let whole = Double(monotonicNanoseconds() - start) / 1e6
    guard reply.status == 201, let pause = reply.json["pause_ns"] as? Int else {
      throw BenchFailure("snapshot: \(reply.text)")
    }
    return (Double(pause) / 1e6, whole)
  }

  /// Asks the service for something on a thread of its own, in the middle of a load.
  ///
  /// - Parameter body: gets the service and the path of the device.
  func beside<Value: Sendable>(
    _ contender: Contender, load: () throws -> Void,
    do body: @escaping @Sendable (RunningService, _ device: String) throws -> Value
  ) throws -> Value {
    let service = try service(.ploopd)
    let path = "/v1/devices/\(contender.address.export)"
    let outcome = Locked<Result<Value, BenchFailure>?>(nil)
    let thread = try Thread(name: "bench-beside") {
      poll(nil, 0, 100)
      let result = Result { try body(service, path) }.mapError { BenchFailure("\($0)") }
      outcome.withLock { $0 = result }
    }
    try load()
    thread.join()
    guard let result = outcome.withLock({ $0 }) else { throw BenchFailure("nothing was done") }
    return try result.get()
  }

  func merge(_ contender: Contender) throws { try awaitJob(try beginMerge(contender)) }

  func beginMerge(_ contender: Contender) throws -> String {
    try beginJob("{\"type\":\"merge\",\"device\":\"\(contender.address.export)\"}")
  }

  func beginJob(_ body: String) throws -> String {
    let reply = try service(.ploopd).post("/v1/jobs", body)
    guard reply.status == 202, let id = reply.json["id"] as? String else {
      throw BenchFailure("\(body): \(reply.text)")
    }
    return id
  }

  /// Runs a job to its end.
  func run(_ job: String) throws { try awaitJob(try beginJob(job)) }

  /// Detaches a disk that lies in a folder of its id, and removes it.
  func removeDisk(_ id: String) throws {
    let service = try service(.ploopd)
    let reply = try service.delete("/v1/devices/\(id)")
    guard reply.status == 204 else { throw BenchFailure("detach: \(reply.text)") }
    try Tool.shell("rm -r '\(service.images)/\(id)'")
  }

  /// A disk that was moved is ours again.
  func takeBack(_ contender: Contender) throws {
    let reply = try service(.ploopd).patch(
      "/v1/devices/\(contender.address.export)", #"{"suspended":false,"force":true}"#)
    guard reply.status == 200 else { throw BenchFailure("resume: \(reply.text)") }
  }

  /// Waits until a guest has written so much since the disk was attached.
  func awaitWrites(_ contender: Contender, bytes: Double) throws {
    let before = try bytesWritten(contender)
    let deadline = Deadline.after(seconds: 120)
    while try bytesWritten(contender) < before + bytes {
      guard !deadline.hasPassed else { throw BenchFailure("the guest does not write") }
      poll(nil, 0, 50)
    }
  }

  private func bytesWritten(_ contender: Contender) throws -> Double {
    let reply = try service(.ploopd).get("/v1/devices/\(contender.address.export)/stats")
    guard let bytes = (reply.json["write"] as? [String: Any])?["bytes"] as? Double else {
      throw BenchFailure("statistics: \(reply.text)")
    }
    return bytes
  }

  /// - Returns: what its result says.
  @discardableResult
  func awaitJob(_ id: String) throws -> [String: Any] {
    let service = try service(.ploopd)
    while true {
      let job = try service.get("/v1/jobs/\(id)")
      guard !(job.json["finished_at"] is String) else {
        guard job.json["state"] as? String == "succeeded" else {
          throw BenchFailure("job: \(job.text)")
        }
        return job.json["result"] as? [String: Any] ?? [:]
      }
      let revision = job.json["revision"] as? Int ?? 0
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(revision)&wait=10")
    }
  }

  private func wait(for address: NBDAddress, _ child: ChildProcess, log: String) throws {
    let deadline = Deadline.after(seconds: 20)
    while true {
      do throws(BenchFailure) {
        _ = try NBDClient(address, structuredReplies: false)
        return
      } catch {
        guard !deadline.hasPassed, child.isRunning else {
          let said = try Tool.shell("cat '\(log)'", check: false).output
          throw BenchFailure("\(address.uri) does not answer: \(error) \(said)")
        }
      }
      poll(nil, 0, 10)
    }
  }

  /// Ends the services; whatever else runs ends with its contender.
  func shutDown() throws {
    for service in services.values { _ = try service.end() }
    services = [:]
  }
}

extension String {
  var trimmingNewline: String { last == "\n" ? String(dropLast()) : self }
}
