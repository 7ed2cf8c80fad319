import CSQLiteTrace
import CrashKit
import GRDB
import PloopIO
import TestSupport

@testable import PloopControl

/// Everything that SQLite does to a state folder, from its first file on, and what of it was answered.
final class StateRecording {
  let trace = IOTrace()
  private let folder: ImageFolder

  /// - Parameter path: an empty folder.
  init(_ path: String) throws {
    folder = try ImageFolder(path: path)
    try SQLiteWatch.begin(path, trace)
  }

  func end() { SQLiteWatch.end() }

  /// Whoever asked for a change was told that it is made.
  func answered() { trace.mark(0) }

  struct Result {
    var states = 0
    var versions = 0
    var bad: [String] = []
  }

  /// Looks at states behind each call: each is the database as some transaction has left it, not older than what was
  /// answered, and the service can begin with it.
  ///
  /// - Parameters:
  ///   - scratch: an empty folder.
  ///   - samples: states behind each call that is looked at.
  ///   - stride: every so-manieth call is.
  func enumerate(
    in scratch: ImageFolder, samples: Int, stride: Int, seed: UInt64
  ) throws -> Result {
    var result = Result()
    var random = SeededGenerator(seed: seed)
    var states = FolderStates(folder, initial: [:], blockBytes: 512)
    var versions: [String] = [try content(of: [:], in: scratch)]
    var answered = 0
    for (position, event) in trace.events.enumerated() {
      states.apply(event, at: position)
      switch event {
      case .mark:
        answered = versions.count - 1
        continue
      // Nothing is different where nothing is lost.
      case .syncStarted, .synced, .folderSynced: break
      default:
        let newest = try content(of: states.latest, in: scratch)
        if versions.last != newest { versions.append(newest) }
      }
      guard position % stride == 0 else { continue }
      for number in 0..<samples {
        let state = states.sample(inOrder: number % 2 == 0, using: &random)
        result.states += 1
        if let fault = fault(state, versions[answered...], in: scratch) {
          result.bad.append("position \(position), seed \(seed): \(fault)")
        }
      }
    }
    result.versions = versions.count
    return result
  }

  private func fault(
    _ state: [String: [UInt8]], _ allowed: ArraySlice<String>, in scratch: ImageFolder
  ) -> String? {
    do {
      guard allowed.contains(try content(of: state, in: scratch)) else {
        return "the database is what no transaction has left, or less than was answered"
      }
      try FolderStates.lay(state, in: scratch)
      let damages = try StateDatabase(in: scratch, path: scratch.path).damages
      return damages.isEmpty ? nil : "damaged: \(damages)"
    } catch {
      return "\(error)"
    }
  }

  /// All rows of all tables; the empty text where there are none yet.
  private func content(of state: [String: [UInt8]], in scratch: ImageFolder) throws -> String {
    try FolderStates.lay(state, in: scratch)
    guard state[StateDatabase.fileName] != nil else { return "" }
    let queue = try DatabaseQueue(path: "\(scratch.path)/\(StateDatabase.fileName)")
    return try queue.read { database in
      let verdict = try String.fetchAll(database, sql: "PRAGMA integrity_check")
      guard verdict == ["ok"] else { throw DatabaseError(message: "\(verdict.prefix(3))") }
      let tables = try String.fetchAll(
        database, sql: "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
      return try tables.map { table in
        "\(table): \(try Row.fetchAll(database, sql: "SELECT * FROM \"\(table)\" ORDER BY rowid"))"
      }.joined(separator: "\n")
    }
  }
}

/// Tells a probe what SQLite does to databases beneath a folder, one folder at a time.
final class SQLiteWatch {
  private let probe: any IOProbe

  private init(_ probe: any IOProbe) { self.probe = probe }

  static func begin(_ path: String, _ probe: any IOProbe) throws {
    // Whoever still has the database open at the end may go on telling.
    let context = Unmanaged.passRetained(SQLiteWatch(probe)).toOpaque()
    let code = csqlite_trace(
      path,
      { context, call, path, place, bytes, count in
        guard let context, let path else { return }
        Unmanaged<SQLiteWatch>.fromOpaque(context).takeUnretainedValue().note(
          call, String(cString: path), place,
          UnsafeRawBufferPointer(start: bytes, count: Int(count)))
      }, context)
    guard code == 0 else { throw DatabaseError(resultCode: ResultCode(rawValue: code)) }
  }

  static func end() { csqlite_trace_end() }

  private func note(
    _ call: csqlite_call, _ path: String, _ place: UInt64, _ bytes: UnsafeRawBufferPointer
  ) {
    let operation: IOOperation
    var path = path
    switch call {
    case CSQLITE_CREATE: operation = .create
    case CSQLITE_WRITE: operation = .write(offset: place, count: bytes.count)
    case CSQLITE_TRUNCATE: operation = .truncate(size: place)
    case CSQLITE_SYNC_STARTED: return probe.syncStarts(path: path)
    case CSQLITE_SYNCED: operation = .sync
    case CSQLITE_UNLINK: operation = .unlink
    default:
      operation = .syncFolder
      // It names the file whose name is durable by that.
      path = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? path
    }
    probe.succeeded(operation, path: path, bytes: bytes)
  }
}
