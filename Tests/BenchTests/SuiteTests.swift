import BenchKit
import Foundation
import TestSupport
import Testing

/// Whether the benchmark works; how fast anything is, is not for tests to say.
@Suite("The benchmark")
struct SuiteTests {
  @Test("rows are measured of real servers, and what they return is checked")
  func rows() throws {
    var settings = SuiteSettings(program: RunningService.program)
    (settings.rounds, settings.seconds) = (2, 0.02)
    (settings.diskBytes, settings.spanBytes) = (128 << 20, 64 << 20)
    settings.peers = [.ploopd, .qemu, .qcow2, .nbdkit, .null]
    settings.rows = [
      "read-16", "overwrite", "mix", "chain", "zeroes", "cow", "cow-reflink",
      "neighbours", "merge", "merge-guest",
      "snapshot", "recording", "check", "clone", "compact", "attach", "return",
      "index-cache",
      "backup", "backup-guest", "increment",
      "api-get", "api-list", "api-slow-peers", "api-beside-io",
    ]
    settings.devices = 8
    var lines: [String] = []
    let report = try BenchKit.Suite(settings) { lines.append($0) }.run()
    #expect(
      report.rows.map(\.id) == [
        "read-16", "overwrite", "mix", "chain", "neighbours", "zeroes", "cow", "cow-reflink",
        "merge",
        "merge-guest", "snapshot", "recording", "check", "clone", "compact", "attach",
        "return", "index-cache", "backup",
        "backup-guest", "backup-guest-p99", "increment",
        "api-get", "api-list", "api-slow-peers", "api-beside-io",
      ])
    #expect(lines.count == report.rows.count)
    for row in report.rows {
      #expect(row.contenders.count >= 2, "\(row.id)")
      for measured in row.contenders {
        #expect(measured.samples.count == 2, "\(row.id) \(measured.name)")
        #expect(measured.samples.allSatisfy { $0.value > 0 }, "\(row.id) \(measured.name)")
      }
      for goal in row.goals { #expect(row.isReached(goal) != nil, "\(row.id)") }
    }
  }

  @Test("structured replies with data and holes are understood as simple ones are")
  func structured() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(try service.create("disk", sizeBytes: 64 << 20).status == 201)
    let address = try NBDAddress(uri: service.uri("disk"))
    var job = LoadJob()
    (job.spanBytes, job.blockBytes, job.depth) = (64 << 20, 1 << 20, 4)
    (job.kind, job.order, job.strideBytes) = (.write, .sequential, 2 << 20)
    (job.limit, job.checksEntirely) = (.pass, true)
    let written = try #require(try Load.run([(address, job)]).first)
    #expect(written.writtenUnits == 32 * 256)
    (job.kind, job.strideBytes, job.blockBytes) = (.read, nil, 4 << 20)
    for structured in [false, true] {
      job.structuredReplies = structured
      let read = try #require(try Load.run([(address, job)]).first)
      #expect(read.readUnits == ["0": 8192, "1": 8192])
      job.accepted = 0...1
    }
    job.accepted = 1...1
    #expect(throws: BenchFailure.self) { try Load.run([(address, job)]) }
    #expect(try service.end() == 0)
  }

  @Test("the command prints JSON, and says what is wrong with a status")
  func command() throws {
    let folder = try TemporaryFolder()
    let bench = RunningService.builtProgram("bench")
    let script = """
      '\(bench)' null-server '\(folder.path)/s' & server=$!
      until [ -S '\(folder.path)/s' ]; do sleep 0.05; done
      '\(bench)' load 'nbd+unix:///?socket=\(folder.path)/s' --operations 300 --depth 16 \
        --accept 1 --server-pid $server; status=$?
      '\(bench)' load 'nbd+unix:///?socket=\(folder.path)/s' --operations 9 --accept 2 2>/dev/null &&
        status=99
      kill $server; exit $status
      """
    let output = try Tool.shell(script).output
    let result = try JSONDecoder().decode(LoadResult.self, from: Data(output.utf8))
    #expect(result.operations == 300)
    #expect(result.serverMicroseconds ?? 0 > 0)
  }

  @Test(
    "a row that takes a file system of its own is left out where none can be mounted, and says so")
  func leftOut() throws {
    let folder = try TemporaryFolder()
    // Root of a namespace has no loop devices.
    let output = try Tool.shell(
      """
      unshare --user --map-root-user '\(RunningService.builtProgram("bench"))' run --small \
        --rows cow-reflink --folder '\(folder.path)' --json '\(folder.path)/report'
      """
    ).output
    #expect(output.contains("cow-reflink was left out: a file system of its own needs root"))
    let report = try JSONDecoder().decode(
      Report.self, from: Data(Tool.shell("cat '\(folder.path)/report'").output.utf8))
    #expect(report.rows.isEmpty)
    #expect(report.settings.contains { $0.contains("cow-reflink was left out") })
  }

  @Test("settings that make no sense are refused")
  func refusals() {
    var settings = SuiteSettings(program: RunningService.program)
    settings.rows = ["read-1", "nonsense"]
    #expect(throws: BenchFailure.self) { try settings.validate() }
    settings.rows = nil
    settings.rounds = 0
    #expect(throws: BenchFailure.self) { try settings.validate() }
  }
}
