internal import PloopIO
internal import TestSupport

/// All rows of the side-by-side benchmark, one after the other.
///
/// Rounds are interleaved: every contender does its work once in a round, and the order rotates, so
/// that what changes on the machine meanwhile changes for all.
package final class Suite {
  /// In the order in which they are measured.
  package static let rowIDs =
    warmRowIDs + ["neighbours", "fairness", "zeroes", "cold"]
    + ["first-touch", "cow", "cow-reflink", "sparse"] + chainRowIDs
    + indexRowIDs + backupRowIDs + migrateRowIDs + secureRowIDs + apiRowIDs

  let settings: SuiteSettings
  let servers: Servers
  private let say: (String) -> Void
  private var rows: [Report.Row] = []
  private var leftOut: [String] = []
  /// The last stamp that any write has used; reads accept 1 up to this one.
  var stamp: UInt8 = 1
  private var isPinned = true
  private var pins: [String: PinnedRange] = [:]

  /// - Parameter say: told what is being done, line by line.
  package init(_ settings: SuiteSettings, say: @escaping (String) -> Void) throws {
    try settings.validate()
    self.settings = settings
    self.say = say
    servers = try Servers(beneath: settings.folder, programs: settings.programs)
  }

  package func run() throws -> Report {
    let others = try Tool.shell("cut -d ' ' -f 1 /proc/loadavg").output.trimmingNewline
    try warmRows()
    try freshRows()
    try chainRows()
    try indexRows()
    try backupRows()
    try migrateRows()
    try secureRows()
    try apiRows()
    try servers.shutDown()
    return Report(
      machine: try Machine.description(program: settings.program),
      settings: [
        "\(settings.rounds) interleaved rounds of \(Table.fixed(settings.seconds)) s, working set \(settings.spanBytes >> 20) MiB of a disk of \(settings.diskBytes >> 20) MiB, "
          + (isPinned
            ? "pinned in the page cache" : "not pinned in the page cache (mlock refused)"),
        "load average before the run: \(others)",
      ] + leftOut, rows: rows)
  }

  /// Says of a row that it cannot be measured here.
  func leaveOut(_ id: String, why: String) {
    let line = "\(id) was left out: \(why.split(separator: "\n").joined(separator: " "))"
    leftOut.append(line)
    say(line)
  }

  func wants(_ id: String) -> Bool { settings.rows?.contains(id) ?? true }

  /// Those of `peers` that take part; in a comparison two builds of ploopd.
  func taking(_ peers: [Peer]) -> [Peer] {
    if settings.base != nil { return [.ploopd, .base] }
    return peers.filter { settings.peers?.contains($0) ?? true }
  }

  /// In a comparison there is one goal: nothing gets slower than noise.
  func goals(_ goals: [Report.Goal], atMost: Bool = false) -> [Report.Goal] {
    guard settings.base != nil else { return goals }
    return [
      Report.Goal(against: Peer.base.rawValue, ratio: atMost ? 1.05 : 0.95, atMost: atMost)
    ]
  }

  /// Measures a row in interleaved rounds and keeps it.
  ///
  /// - Parameter place: whose file system has to be quiet; nil for that of all.
  /// - Returns: the row, or nil when nobody takes part.
  @discardableResult
  func measure<Subject>(
    _ id: String, _ title: String, unit: String, _ goals: [Report.Goal], of subjects: [Subject],
    on place: Servers? = nil, name: (Subject) -> String,
    _ body: (Subject, _ round: Int) throws -> Report.Sample
  ) throws -> Report.Row? {
    guard !subjects.isEmpty else { return nil }
    var samples = subjects.map { Report.Measured(name: name($0), samples: []) }
    // The first round is not counted where there are several: first uses cost more than later ones,
    // of memory, of the disk, and of the servers.
    for round in (settings.rounds > 1 ? -1 : 0)..<settings.rounds {
      for turn in subjects.indices {
        let index = (turn + max(0, round)) % subjects.count
        try (place ?? servers).settle()
        do {
          let sample = try body(subjects[index], max(0, round))
          if round >= 0 { samples[index].samples.append(sample) }
        } catch { throw BenchFailure("\(title), \(samples[index].name): \(error)") }
      }
    }
    let row = Report.Row(id: id, title: title, unit: unit, goals: goals, contenders: samples)
    keep(row)
    return row
  }

  func keep(_ row: Report.Row) {
    rows.append(row)
    let values = row.contenders.map { measured in
      let middle = Spread(measured.samples.map(\.value))?.median ?? 0
      return "\(measured.name) \(Table.number(middle))"
    }
    say("\(row.title), \(row.unit): \(values.joined(separator: ", "))")
  }

  // MARK: What rows are made of

  /// Keeps the working set of an image in the page cache.
  func pin(_ file: String) throws {
    // Header and index are in front of the data.
    let range = try PinnedRange(file, bytes: settings.spanBytes + 8 << 20)
    if !range.isPinned { isPinned = false }
    pins[file] = range
  }

  func unpin(_ files: [String]) { files.forEach { pins[$0] = nil } }

  /// Lets the page cache hold the working set as reading through its server leaves it.
  func repopulate(_ contender: Contender) throws {
    guard contender.peer != .null, let oldest = contender.files.first else { return }
    unpin([oldest])
    try PageCache.drop(oldest)
    try verify(contender)
    try pin(oldest)
  }

  /// A job over the working set that accepts what this suite has written.
  func job(_ change: (inout LoadJob) -> Void) -> LoadJob {
    var job = LoadJob()
    job.spanBytes = UInt64(settings.spanBytes)
    job.limit = .seconds(settings.seconds)
    job.accepted = 1...stamp
    change(&job)
    return job
  }

  /// - Parameter isFresh: the work needs memory that nobody has yet, for new pages of files.
  @discardableResult
  func load(
    _ contender: Contender, isFresh: Bool = false, _ change: (inout LoadJob) -> Void
  ) throws -> LoadResult {
    if isFresh { FreeMemory.warm(bytes: settings.spanBytes + settings.spanBytes / 4) }
    let results = try Load.run([(contender.address, job(change))], server: contender.process)
    guard let result = results.first else { throw BenchFailure("no result") }
    return result
  }

  /// Writes the range once, in order, 1 MiB at a time: the same writer for every format.
  func fill(_ contender: Contender, offset: Int = 0, bytes: Int, stamp: UInt8 = 1) throws {
    try load(contender) {
      $0.kind = .write
      ($0.order, $0.limit, $0.blockBytes) = (.sequential, .pass, 1 << 20)
      ($0.offset, $0.spanBytes) = (UInt64(offset), UInt64(bytes))
      $0.stamp = stamp
    }
  }

  /// Ends a server and removes its images.
  func finish(_ contender: Contender) throws {
    try contender.stop()
    unpin(contender.files)
    for file in contender.files { try servers.remove(file) }
  }

  /// Reads a range once and looks at every byte.
  ///
  /// - Parameters:
  ///   - least: how many units must bear `stamp`: those whose writes were acknowledged.
  ///   - structuredReplies: asks for them where the server has them, as nbdcopy does.
  func verify(
    _ contender: Contender, offset: Int = 0, bytes: Int? = nil, accepted: ClosedRange<UInt8>? = nil,
    stamp: UInt8? = nil, least: Int = 0, structuredReplies: Bool = false
  ) throws {
    // The null server has nothing to lose.
    guard contender.peer != .null else { return }
    let result = try load(contender) {
      ($0.order, $0.limit, $0.blockBytes, $0.depth) = (.sequential, .pass, 1 << 20, 4)
      ($0.offset, $0.spanBytes) = (UInt64(offset), UInt64(bytes ?? settings.spanBytes))
      ($0.checksEntirely, $0.structuredReplies) = (true, structuredReplies)
      $0.accepted = accepted ?? $0.accepted
    }
    guard let stamp else { return }
    let found = result.readUnits["\(stamp)"] ?? 0
    guard found >= UInt64(least) else {
      throw BenchFailure("\(contender.name) lost writes: \(found) units of \(least)")
    }
  }
}

extension Report.Sample {
  /// - Parameter isBulk: MiB/s, not operations.
  init(_ result: LoadResult, isBulk: Bool = false) {
    self.init(
      value: isBulk ? result.mebibytesPerSecond : result.operationsPerSecond, p50: result.p50,
      p99: result.p99, serverMicroseconds: result.serverMicroseconds)
  }
}
