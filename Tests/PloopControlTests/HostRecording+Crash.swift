import CrashKit
import Foundation
import Logging
import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport

@testable import PloopControl

// What a power failure leaves of images and state together, and what the next life of the service makes of it.

extension HostRecording {
  struct Result {
    var states = 0
    var bad: [String] = []
  }

  /// Looks at states behind each call: names and bytes of all folders and files as of one moment.
  ///
  /// - Parameters:
  ///   - path: of an empty folder.
  ///   - samples: states behind each call that is looked at, half of them with names in their order.
  ///   - stride: every so-manieth call is.
  func enumerate(in path: String, samples: Int, stride: Int, seed: UInt64) async throws -> Result {
    var result = Result()
    var random = SeededGenerator(seed: seed)
    var states = FolderStates(beneath: HostTrace.place, initial: initial, blockBytes: 512)
    for (position, event) in trace.events.enumerated() {
      states.apply(event, at: position)
      guard (position + Int(seed % UInt64(stride))) % stride == 0 else { continue }
      let choices = states.choices
      for number in 0..<samples {
        let inOrder = (position / stride + number) % 2 == 0
        let state = choices.sample(inOrder: inOrder, using: &random)
        result.states += 1
        if let fault = await fault(state, at: position + 1, inOrder, in: path) {
          result.bad.append("position \(position), seed \(seed): \(fault)")
        }
      }
    }
    return result
  }

  private static func lay(_ state: [String: [UInt8]], in path: String) throws {
    try Tool.shell("rm -rf '\(path)' && mkdir -p '\(path)/images/loose' '\(path)/state'")
    let host = try ImageFolder(path: path)
    for (name, bytes) in state {
      let parts = name.split(separator: "/", omittingEmptySubsequences: false)
      let folder = try host.makeFolder(beneath: parts.dropLast().joined(separator: "/"))
      guard let last = parts.last, !last.isEmpty else { continue }
      let file = try folder.create(String(last))
      try file.write(AlignedBuffer(bytes).region, at: 0)
      try file.truncate(to: UInt64(bytes.count))
    }
  }

  private func fault(
    _ state: [String: [UInt8]], at position: Int, _ inOrder: Bool, in path: String
  ) async -> String? {
    do {
      try Self.lay(state, in: path)
      let engine = IOEngine(threadLimit: 2)
      defer { engine.stop(until: .after(seconds: 60)) }
      let probe = HostTrace(state: "\(path)/state")
      let service = try Service(
        roots: Roots([("main", "\(path)/images")], probe: probe),
        store: Store(path: "\(path)/state", probe: probe), engine: engine,
        log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
        configuration: Service.Configuration(), registry: .standard)
      try service.recover()
      let fault: String?
      do {
        fault = try await look(at: service, position, inOrder, in: path)
      } catch { fault = "\(error)" }
      guard service.stop(until: .after(seconds: 120)) else {
        return "\(fault ?? "it is good, but") it does not end"
      }
      if let fault { return fault }
      return try closed(at: position, inOrder, in: path)
    } catch {
      return "\(error)"
    }
  }

  // MARK: The next life

  private func look(
    at service: Service, _ position: Int, _ inOrder: Bool, in path: String
  ) async throws -> String? {
    let damages = service.state.withLock { $0.damages }
    guard damages.isEmpty else { return "damaged: \(damages)" }
    if let fault = try await jobs(of: service, position) { return fault }
    for disk in disks.values.sorted(by: { $0.id < $1.id }) {
      if let fault = try await look(at: disk, service, position, in: path) {
        return "\(disk.id): \(fault)"
      }
    }
    guard inOrder else { return nil }
    // Before it is attached for the first time nobody has it.
    let isLoose = disks["loose"]?.lives.first.map { position < $0.askedAt } ?? true
    let left = try await service.images(root: nil, state: .orphaned, after: nil, limit: 100)
      .page.items.filter { $0.kind == .image && !(isLoose && $0.path == "main:loose/disk.hds") }
    return left.isEmpty ? nil : "nobody names \(left.map(\.path))"
  }

  /// Every job that was accepted is there, and every one comes to a good end.
  private func jobs(of service: Service, _ position: Int) async throws -> String? {
    let found = try await service.jobs(before: nil, limit: 100, JobFilter()).items.map(\.record.id)
    for work in work where work.promise.isKept(at: position) && !found.contains(work.id) {
      return "the job \(work.id) is gone"
    }
    for id in found {
      let job = try await Self.end(of: id, in: service)
      guard job.state == .succeeded else {
        return "the job \(job.type) has \(job.state): \(String(describing: job.error))"
      }
    }
    return nil
  }

  private func look(
    at disk: Disk, _ service: Service, _ position: Int, in path: String
  ) async throws -> String? {
    var controller = try? service.controller(disk.id)
    if controller == nil {
      guard !disk.lives.contains(where: { $0.isKept(at: position) }) else {
        return "the device is gone"
      }
      guard let first = disk.lives.first, first.askedAt <= position else { return nil }
      if first.madeAt > position {
        // A job makes it, or nobody does; who has made it by a request asks once more.
        guard disk.exact == nil else { return nil }
      }
      let hasDescriptor = FileManager.default.fileExists(
        atPath: "\(path)/images/\(disk.descriptor)")
      let request: AttachRequest
      if disk.id == "loose" {
        request = AttachRequest(
          id: disk.id,
          source: hasDescriptor
            ? .descriptor(.init(path: disk.descriptor)) : .deltas([.init(path: "loose/disk.hds")]))
      } else {
        request =
          first.madeAt > position
          ? Self.request(disk.id)
          : AttachRequest(id: disk.id, source: .descriptor(.init(path: disk.descriptor)))
      }
      do {
        _ = try await service.attach(request, keeping: nil)
      } catch { return "asked for again it is refused: \(error.code.rawValue), \(error.detail)" }
      controller = try service.controller(disk.id)
    } else if !disk.lives.contains(where: { $0.isPossible(at: position) }) {
      return "the device is there again"
    }
    guard let device = try controller?.device() else { return "no device" }
    guard device.failure == nil else { return "it fails: \(device.failure ?? "")" }
    for (sector, value) in try Recording.values(of: device).enumerated() {
      let allowed =
        disk.exact.map { [$0[sector]] } ?? disk.history.allowed(sector: sector, at: position)
      guard let value, allowed.contains(value) else {
        return "sector \(sector) reads \(value ?? 0), allowed are \(allowed)"
      }
    }
    let found = try await service.snapshots(disk.id).items.map(\.guid)
    for snapshot in snapshots where snapshot.disk == disk.id {
      if snapshot.promise.isKept(at: position), !found.contains(snapshot.guid) {
        return "the snapshot \(snapshot.guid) is gone"
      }
    }
    return nil
  }

  // MARK: Its end

  /// All images are closed and clean, each snapshot and each backup holds what it was made of.
  private func closed(at position: Int, _ inOrder: Bool, in path: String) throws -> String? {
    let images = "\(path)/images"
    for file in try FileManager.default.subpathsOfDirectory(atPath: images).sorted() {
      let name = file.split(separator: "/").last ?? ""
      guard !inOrder || !name.hasSuffix(".intent") else { return "\(file) is left" }
      let folder = try ImageFolder(
        path: "\(images)/\(file)".split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" })
      guard name.contains(".hds"), !name.hasSuffix(".checkpoints"), !name.hasSuffix(".tmp"),
        !name.contains(".index-backup"), !name.hasSuffix(".lck")
      else { continue }
      // What a power failure in the middle of a create leaves is no image, and nobody's.
      guard let check = try? ImageCheck(folder.open(String(name), writable: false)) else {
        guard inOrder else { continue }
        return "\(file) is no image"
      }
      guard check.verdict == .clean else { return "\(file) is \(check.verdict)" }
    }
    for snapshot in snapshots where snapshot.promise.isKept(at: position) {
      let folder = try ImageFolder(path: "\(images)/\(snapshot.disk)")
      let descriptor = try DescriptorFile(in: folder).read()
      var options = AttachOptions()
      options.readonly = true
      let device = try Device.attach(
        descriptor.chain(to: snapshot.guid).map { shot in
          DeltaSource(
            file: try folder.open(shot.file, writable: false), folder: folder, name: shot.file)
        }, options)
      defer { try? device.detach(until: .after(seconds: 10)) }
      guard try Recording.values(of: device) == snapshot.values else {
        return "the snapshot \(snapshot.guid) of \(snapshot.disk) holds something else"
      }
    }
    for work in work where work.endedAt <= position {
      guard let values = work.values else { continue }
      guard try backup(work.id, in: images) == values else {
        return "the backup \(work.id) holds something else"
      }
    }
    return nil
  }

  private func backup(_ id: String, in images: String) throws -> [UInt64?] {
    let target = try DirectoryTarget(in: ImageFolder(path: "\(images)/backups"))
    for name in try target.chains(of: "vm2") {
      let chain = try target.chain(name, of: "vm2")
      guard chain.has(id) else { continue }
      let reader = try PointReader(id, of: chain)
      let buffer = AlignedBuffer(count: Int(Self.clusterBytes))
      return try (0..<reader.geometry.clusterCount).flatMap { cluster -> [UInt64?] in
        try reader.read(into: buffer.region, from: cluster)
        return stride(from: 0, to: buffer.count, by: History.sectorBytes).map {
          History.value(of: buffer.region.slice($0, History.sectorBytes))
        }
      }
    }
    throw Tool.Failure(description: "the backup \(id) is gone")
  }
}
