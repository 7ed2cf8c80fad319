import Foundation
import TestSupport
import Testing

/// What the way to a cached cluster must not do for each request (docs/performance.md), counted in the
/// service as it is released.
@Suite("The cached path")
struct CachedPathTests {
  private static let package = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

  private struct Counts {
    let memory: UInt64
    let references: UInt64
    let objects: UInt64
  }

  private static func counts(_ path: String) throws -> Counts {
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)).prefix(24))
    try #require(bytes.count == 24)
    func number(_ index: Int) -> UInt64 {
      bytes[index * 8..<index * 8 + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    return Counts(memory: number(0), references: number(1), objects: number(2))
  }

  @Test("neither asks for memory nor counts references, however many requests there are")
  func nothingForEach() throws {
    let released = "\(Self.package)/.build/release/ploopd"
    try #require(
      FileManager.default.isExecutableFile(atPath: released),
      "swift build -c release --product ploopd comes first; scripts/test does it")
    let folder = try TemporaryFolder()
    try Tool.shell(
      """
      cc -O1 -fno-builtin -shared -fPIC -o '\(folder.path)/count.so' '\(Self.package)/Tests/Tools/count-calls.c' -ldl
      printf '#!/bin/sh\\nexec env LD_PRELOAD="%s/count.so" COUNTS="%s/counts" "%s" "$@"\\n' \
        '\(folder.path)' '\(folder.path)' '\(released)' > '\(folder.path)/ploopd'
      chmod +x '\(folder.path)/ploopd'
      """)
    let service = try RunningService(
      in: folder.path, program: "\(folder.path)/ploopd", logLevel: "notice")
    _ = try service.create("vm1", sizeBytes: 256 << 20)
    let bench = RunningService.builtProgram("bench")
    func load(_ options: String) throws {
      try Tool.shell("'\(bench)' load '\(service.uri("vm1"))' --span 64M \(options)", seconds: 120)
    }
    try load("--kind write --order sequential --block 1M --depth 4 --pass")
    let kinds = [
      "--accept 1", "--accept 1 --structured", "--kind write --stamp 1",
      "--accept 1 --block 64K", "--kind write --stamp 1 --block 64K",
    ]
    for kind in kinds {
      for depth in [1, 16] {
        func spent(_ operations: Int) throws -> Counts {
          let before = try Self.counts("\(folder.path)/counts")
          try load("\(kind) --depth \(depth) --operations \(operations)")
          let after = try Self.counts("\(folder.path)/counts")
          return Counts(
            memory: after.memory - before.memory,
            references: after.references - before.references,
            objects: after.objects - before.objects)
        }
        // What a connection costs is the same for both, give or take what happens beside it: on a busy machine it waits
        // more often, and some of what it waits for is counted, so the least of a few tries is what counts.
        func least(_ operations: Int) throws -> Counts {
          let tries = try (0..<3).map { _ in try spent(operations) }
          return Counts(
            memory: tries.map(\.memory).min() ?? 0, references: tries.map(\.references).min() ?? 0,
            objects: tries.map(\.objects).min() ?? 0)
        }
        let few = try least(500)
        let many = try least(5_500)
        let slack: UInt64 = 250
        let what = "\(kind), depth \(depth)"
        #expect(many.memory < few.memory + slack, "memory: \(what)")
        #expect(many.references < few.references + slack, "references: \(what)")
        #expect(many.objects < few.objects + slack, "objects: \(what)")
      }
    }
    #expect(try Self.counts("\(folder.path)/counts").references > 0, "the counter counts")
    _ = try service.end()
  }
}
