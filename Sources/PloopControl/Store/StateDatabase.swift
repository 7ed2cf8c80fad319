internal import FoundationEssentials
internal import GRDB
internal import PloopIO

/// The database file: opened, checked, brought up to date, and set aside when it is damaged.
struct StateDatabase {
  static let fileName = "ploopd.db"

  let queue: DatabaseQueue
  /// What had to be given up, in words; empty as a rule.
  let damages: [String]

  /// - Parameter path: the state folder, which this process has locked.
  /// - Throws: when the folder or its disk cannot be used, or when a newer version of the service
  ///   has written the database. A damaged one does not keep the service from starting: what it
  ///   held of disks is beside their images.
  init(in folder: ImageFolder, path: String) throws(ServiceError) {
    let files = try StateFiles(in: folder)
    var damages = files?.damaged ?? []
    let file = "\(path)/\(StateDatabase.fileName)"
    do {
      do {
        queue = try StateDatabase.connect(file, Migrations.migrator(importing: files?.content))
      } catch let damage as Damage {
        damages.append(try StateDatabase.setAside(damage, in: folder))
        // Revisions go on above every one that was given out: nobody gives out one in each second.
        queue = try StateDatabase.connect(
          file,
          Migrations.migrator(
            importing: files?.content, revisionFloor: UInt64(max(0, wallClockSeconds()))))
      }
      try folder.sync()
    } catch { throw ServiceError(storing: error) }
    try files?.remove()
    self.damages = damages
  }

  private struct Damage: Error {
    let detail: String
  }

  private static func connect(
    _ file: String, _ migrator: DatabaseMigrator
  ) throws -> DatabaseQueue {
    var configuration = Configuration()
    configuration.journalMode = .wal
    configuration.foreignKeysEnabled = true
    configuration.label = "ploopd-state"
    // Somebody may be looking at it with sqlite3.
    configuration.busyMode = .timeout(5)
    do {
      let queue = try DatabaseQueue(path: file, configuration: configuration)
      // Here and not when the connection is prepared: the library sets NORMAL after that, with which
      // a reply could promise what a power failure takes back.
      try queue.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
      try queue.read { database in
        let verdict = try String.fetchOne(database, sql: "PRAGMA quick_check(1)")
        guard verdict == "ok" else { throw Damage(detail: verdict ?? "no answer") }
        guard try !migrator.hasBeenSuperseded(database) else {
          throw ServiceError(
            .ioError, "\(file) was written by a newer version of ploopd",
            remedy: "start that one, or move the file away")
        }
      }
      try migrator.migrate(queue)
      return queue
    } catch let error as DatabaseError
      where [.SQLITE_CORRUPT, .SQLITE_NOTADB].contains(error.resultCode)
    {
      throw Damage(detail: error.message ?? "\(error.resultCode)")
    }
  }

  private static func setAside(
    _ damage: Damage, in folder: ImageFolder
  ) throws(IOError) -> String {
    var number = 1
    while folder.contains("\(fileName).damaged-\(number)") { number += 1 }
    let name = "\(fileName).damaged-\(number)"
    // With the names that sqlite3 expects beside it.
    for suffix in ["", "-wal"] where folder.contains(fileName + suffix) {
      try folder.rename(fileName + suffix, to: name + suffix)
    }
    if folder.contains("\(fileName)-shm") { try folder.unlink("\(fileName)-shm") }
    try folder.sync()
    return
      "the state database was damaged (\(damage.detail)); it is \(name) now, and a new one was begun"
  }
}

extension ServiceError {
  /// Something went wrong while state was read or written.
  init(storing error: any Error) {
    switch error {
    case let error as ServiceError: self = error
    case let error as IOError: self.init(error)
    case let error as DatabaseError where error.resultCode == .SQLITE_FULL:
      self.init(.insufficientSpace, "the state folder is full: \(error)", errno: "ENOSPC")
    default:
      self.init(.ioError, "the state folder cannot be used: \(error)", errno: "EIO")
    }
  }
}
