import Foundation
import PloopIO
import TestSupport
import Testing

/// A service that ends by itself, as by kill -9, before any call by which a backup or a restore becomes durable.
final class MortalService {
  private static let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().path

  let folder: TemporaryFolder
  let service: RunningService
  private var counts: String { "\(folder.path)/counts" }

  /// - Parameter places: parts of paths, beneath the folder, in which calls count.
  init(places: [String]) throws {
    folder = try TemporaryFolder()
    let program = "\(folder.path)/mortal"
    try Tool.shell(
      """
      cc -O1 -shared -fPIC -o '\(folder.path)/kill.so' '\(Self.package)/Tests/Tools/kill-at-call.c' -ldl
      printf '#!/bin/sh\\nexec env LD_PRELOAD="%s" KILL_AT="%s" KILL_IN="%s" "%s" "$@"\\n' \
        '\(folder.path)/kill.so' '\(folder.path)/counts' '\(places.joined(separator: ":"))' \
        '\(RunningService.program)' > '\(program)'
      chmod +x '\(program)'
      """)
    service = try RunningService(in: folder.path, program: program)
  }

  /// How many calls there were, since it was asked last.
  func takeCalls() throws -> Int {
    let file = try ImageFolder(path: folder.path).open("counts", writable: true)
    let buffer = AlignedBuffer(count: 16)
    try file.readOrZero(into: buffer.region, at: 0)
    let count = Int(clamping: buffer.region.littleEndian(at: 8, as: UInt64.self))
    try file.write(AlignedBuffer(count: 16).region, at: 0)
    return count
  }

  /// The next life of the service is over before its `number`-th call from now on.
  func dieBefore(_ number: Int) throws {
    let buffer = AlignedBuffer(count: 16)
    buffer.region.setLittleEndian(UInt64(clamping: number), at: 0)
    try ImageFolder(path: folder.path).open("counts", writable: true).write(buffer.region, at: 0)
  }

  /// Does something once with each of some of its calls the last of the service's life.
  ///
  /// - Parameters:
  ///   - prepare: hands out the request for a job.
  ///   - end: waits for a job.
  func sweep(
    prepare: () throws -> String, end: (String) throws -> [String: Any],
    check: (_ id: String, _ job: [String: Any], _ note: String) throws -> Void
  ) throws {
    func begin(_ job: String) throws -> String {
      let reply = try service.post("/v1/jobs", job)
      guard let id = reply.json["id"] as? String else {
        throw Tool.Failure(description: reply.text)
      }
      return id
    }
    var calls = 0
    // Twice: what is there for the first time is made.
    for _ in 0..<2 {
      let request = try prepare()
      _ = try takeCalls()
      let id = try begin(request)
      let done = try end(id)
      calls = try takeCalls()
      try check(id, done, "undisturbed")
    }
    #expect(calls > 4)
    // PLOOPD_KILLS=200 is the long form (make kills): each of them.
    let rounds = ProcessInfo.processInfo.environment["PLOOPD_KILLS"].flatMap { Int($0) } ?? 8
    for round in 0..<min(rounds, calls) {
      let number = 1 + round * calls / min(rounds, calls)
      let request = try prepare()
      try dieBefore(number)
      var id: String?
      do { id = try begin(request) } catch {
        // It may have died before it answered: nobody was told, and asks again.
        guard (try? service.waitForExit(seconds: 60)) == 128 + 9 else { throw error }
      }
      if id != nil { #expect(try service.waitForExit(seconds: 600) == 128 + 9) }
      try service.start()
      let job = try id ?? begin(request)
      try check(job, try end(job), "killed before call \(number) of \(calls)")
    }
  }
}
