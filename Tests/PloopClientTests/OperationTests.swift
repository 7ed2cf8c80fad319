import ArgumentParser
import PloopJSON
import TestSupport
import Testing
import Yams

@testable import PloopClient

@Suite("ploopctl and openapi.yaml")
struct OperationTests {
  /// Of each operation: route and the names of its query.
  private let contract: [String: (route: String, query: Set<String>)]

  init() throws {
    let folder = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let text = try Tool.shell("cat '/\(folder)/openapi.yaml'").output
    let document = try #require(try Yams.load(yaml: text) as? [String: Any])
    let components = document["components"] as? [String: Any]
    let shared = components?["parameters"] as? [String: [String: Any]] ?? [:]
    func query(_ value: Any?) -> [String] {
      (value as? [[String: Any]] ?? []).compactMap { parameter in
        let name = (parameter["$ref"] as? String)?.split(separator: "/").last.map(String.init)
        let parameter = name.flatMap { shared[$0] } ?? parameter
        return parameter["in"] as? String == "query" ? parameter["name"] as? String : nil
      }
    }
    var contract: [String: (String, Set<String>)] = [:]
    for (path, item) in document["paths"] as? [String: [String: Any]] ?? [:] {
      for (method, value) in item {
        guard let value = value as? [String: Any], let id = value["operationId"] as? String else {
          continue
        }
        contract[id] = (
          "\(method.uppercased()) \(path)",
          Set(query(item["parameters"]) + query(value["parameters"]))
        )
      }
    }
    self.contract = contract
  }

  @Test("every operation stands in both, with the same method and path")
  func table() throws {
    let own = Set(Operation.allCases.map(\.rawValue))
    #expect(own.isDisjoint(with: Self.pages) && own.union(Self.pages) == Set(contract.keys))
    for operation in Operation.allCases {
      let theirs = try #require(contract[operation.rawValue]).route
        .replacing(#/\{[a-z]+\}/#, with: "{}")
      #expect("\(operation.route.method) \(operation.route.path)" == theirs)
    }
  }

  /// What browsers read; left to `ploopctl api`.
  static let pages: Set = [
    "getDashboard", "getDashboardFile", "getContract", "getReference", "getReferenceStyle",
    "listProblems", "getProblem",
  ]

  /// Command lines, and the operation that each is.
  static let lines: [(String, Operation)] = [
    ("service show", .getService), ("service health", .getHealth),
    ("service ready", .getReadiness), ("service metrics", .getMetrics),
    ("service diagnostics", .getDiagnostics),
    ("events", .listEvents), ("watch --after 7 --types device.*", .listEvents),
    ("events --list --device vm1", .listEvents),
    ("devices list --state online --label a=b", .listDevices), ("devices show vm1", .getDevice),
    ("devices create vm1 --size 1G --export vm1 --label a=b", .attachDevice),
    ("devices attach vm1 --descriptor a/DiskDescriptor.xml --at {x}", .attachDevice),
    ("devices attach vm1 --raw-base a --delta b --delta c --repair", .attachDevice),
    ("devices set vm1 --no-autostart --remove-label a --label b=c", .changeDevice),
    ("devices set vm1 --read-bps 10M --write-iops 5 --burst 2", .changeDevice),
    ("devices set vm1 --unlimited", .changeDevice),
    ("devices suspend vm1 --for 30 --holder me", .changeDevice),
    ("devices resume vm1 --force", .changeDevice),
    ("devices detach vm1 --hard --yes --patience 5 --if-revision 7", .detachDevice),
    ("devices map vm1 --offset 1M --length 2M", .getMap), ("devices stats vm1", .getStatistics),
    ("deltas list vm1", .listDeltas), ("deltas show vm1 top", .getDelta),
    ("deltas add vm1 a --raw", .addDelta), ("deltas moved vm1 0 --path b", .changeDelta),
    ("deltas moved vm1 0 --cluster 1=2 --no-verify", .changeDelta),
    ("deltas merged vm1 1 forward", .notifyMerged), ("deltas flip vm1", .flipUpperDeltas),
    ("snapshots list vm1 --tree", .listSnapshots), ("snapshots show vm1 {x}", .getSnapshot),
    ("snapshots create vm1 --name a --protect", .addSnapshot),
    ("snapshots set vm1 {x} --no-protect --description d", .changeSnapshot),
    ("snapshots switch vm1 {x} --discard-top", .switchSnapshot),
    ("snapshots delete vm1 {x} --wait", .removeSnapshot),
    ("snapshots delete vm1 {x} --dry-run", .removeSnapshot),
    ("tracking start vm1", .startTracking), ("tracking show vm1", .getTracking),
    ("tracking next vm1 --max 5", .takeTracked), ("tracking bitmap vm1", .getTrackingBitmap),
    ("tracking stop vm1", .stopTracking), ("checkpoints list vm1", .listCheckpoints),
    ("checkpoints show vm1 a", .getCheckpoint), ("checkpoints create vm1 a", .addCheckpoint),
    ("checkpoints bitmap vm1 a", .getCheckpointBitmap),
    ("checkpoints delete vm1 a", .removeCheckpoint),
    ("push-backup start vm1 --since a --spill b --spill-max 1G", .startPushBackup),
    ("push-backup show vm1", .getPushBackup), ("push-backup read vm1 u --max 3", .readPushBackup),
    ("push-backup confirm vm1 u 1 5+3", .confirmPushBackup),
    ("push-backup data vm1 u --length 1M", .getPushBackupData),
    ("push-backup stop vm1 u --abort", .stopPushBackup),
    ("exports list", .listExports), ("exports show a", .getExport),
    ("exports data a --offset 1M --length 1M", .getExportData), ("exports data a", .getExportData),
    ("exports extents a --context depth --offset 1M", .listExtents),
    ("exports create a vm1 --readonly", .addExport),
    ("exports create a vm1 --tls --client-name dns:b --client-address ::1", .addExport),
    ("exports delete a --hard", .removeExport),
    ("targets list", .listTargets), ("targets show nas", .getTarget),
    ("targets create nas --directory backups", .addTarget),
    ("targets set nas --slots 2 --bps 0", .changeTarget),
    ("targets delete nas --keep-backups", .removeTarget),
    ("backups list nas --device vm1", .listBackups), ("backups show nas 1", .getBackup),
    ("backups delete nas 1 --cascade", .removeBackup),
    ("images list --state orphaned", .listImages),
    ("nodes list", .listNodes), ("devices move vm1 --to host-b", .moveDevice),
    ("queue show", .getQueue), ("queue set --pause --slots 3 --bps 100M", .changeQueue),
    ("jobs list --state running --type merge", .listJobs), ("jobs show 1", .getJob),
    ("jobs wait 1", .getJob), ("jobs log 1 --after 3 --wait 5", .getJobLog),
    ("jobs pause 1", .changeJob), ("jobs resume 1", .changeJob),
    ("jobs set 1 --priority 7 --param max_downtime_ms=5", .changeJob),
    ("jobs cancel 1", .cancelJob), ("jobs retry 1 --wait", .retryJob),
    ("jobs delete 1", .removeJob),
    ("run merge vm1 --level 0 --direction forward --dry-run", .addJob),
    ("run resize vm1 20G", .addJob), ("run hash vm1 --deltas", .addJob),
    ("run check --image a --repair", .addJob), ("run compact vm1 --what zeroes", .addJob),
    ("run copy-up vm1 --dry-run", .addJob), ("run backup vm1 --target nas --mode full", .addJob),
    ("run restore nas 1 --as vm2 --export vm2", .addJob),
    ("run restore nas 1 --into vm1/DiskDescriptor.xml", .addJob),
    ("run verify nas --device vm1", .addJob), ("run prune --device vm1 --keep-last 3", .addJob),
    ("run clone --device vm1 --snapshot {x} --linked --as vm2", .addJob),
    ("run clone --device vm1 --as vm2 --export vm2 --client-name psk:b", .addJob),
    ("run import --image a.raw --format raw --cluster-size 1M --as vm2", .addJob),
    ("run export --device vm1 --to-image a.raw --to-format raw", .addJob),
    ("run migrate vm1 --to-nbd nbd://a/b", .addJob), ("run clean a b", .addJob),
    ("run other hash --device vm1 --param a.b=1", .addJob),
  ]

  private static func command(_ line: String) throws -> any ServiceCommand {
    let command = try PloopctlCommand.parseAsRoot(line.split(separator: " ").map(String.init))
    return try #require(command as? any ServiceCommand, "\(line)")
  }

  @Test(
    "every operation is what some command does, with a path and a query as the contract has them")
  func commands() throws {
    for (line, operation) in Self.lines {
      let command = try Self.command(line)
      let request = command.shown(try command.request)
      let (route, query) = try #require(contract[operation.rawValue])
      let parts = route.split(separator: " ")
      let pattern = String(parts[1]).replacing(#/\{[a-z]+\}/#, with: "[^/]+")
      #expect(request.method == parts[0], "\(line)")
      #expect(try Regex(pattern).wholeMatch(in: request.path) != nil, "\(line): \(request.path)")
      for name in request.query.map(\.name) {
        #expect(query.contains(name) || name.hasPrefix("label."), "\(line): \(name)")
      }
    }
    // Nothing else is left to `ploopctl api` alone.
    #expect(Set(Self.lines.map(\.1)) == Set(Operation.allCases))
  }

  @Test("every command and every option says what it is for, so that manuals can be made of it")
  func help() throws {
    let text = try Tool.shell(
      "'\(RunningService.builtProgram("ploopctl"))' --experimental-dump-help")
    let help = try JSONParser.parse(Array(text.output.utf8))
    var commands = 0
    func look(_ command: JSON, _ path: String) {
      let name = "\(path) \(command.at("commandName")?.text ?? "")"
      commands += 1
      #expect(command.at("abstract") != nil, "\(name)")
      for argument in command.member("arguments")?.items ?? [] {
        #expect(argument.at("abstract") != nil, "\(name): \(argument.at("valueName")?.text ?? "")")
      }
      // `help` is ArgumentParser's own.
      for inner in command.member("subcommands")?.items ?? []
      where inner.at("commandName")?.text != "help" { look(inner, name) }
    }
    look(try #require(help.member("command")), "")
    #expect(commands > 80)
  }

  @Test("what cannot be is said before anything is asked")
  func mistakes() {
    for line in [
      "devices attach vm1", "devices attach vm1 --descriptor a --delta b", "devices set vm1",
      "deltas moved vm1 0", "deltas moved vm1 0 --cluster 1", "snapshots switch vm1 {x}",
      "targets create nas", "targets create nas --file a --nbd b", "run restore nas 1",
      "run clone --as a", "run clone --device a --image b --as c", "run export --device a",
      "run migrate vm1", "run migrate vm1 --to-api a", "run other hash --param a",
      "run other hash --param a=1 --param a.b=2", "push-backup confirm vm1 u 1+",
      "push-backup data vm1 u --length 0", "devices list --label a", "api GET v1", "api get /v1",
      "api POST /v1 --data {", "devices list --timeout 0", "devices create vm1 --size 1X",
    ] {
      #expect(throws: (any Error).self, "\(line)") { try Self.command(line) }
    }
  }
}
