internal import GRDB
internal import Glibc
internal import PloopIO

/// The state folder: a database of what survives the service, and a lock that keeps a second
/// service out.
///
/// Every call may wait for a disk, so none is made by a thread of Swift's own pool.
package final class Store: Sendable {
  let database: StateDatabase
  private let last: Locked<UInt64>
  /// What was found damaged when the folder was opened, in words.
  let damages: [String]
  /// Held as long as the service lives.
  private let lock: ImageFile

  /// - Throws: `image-in-use` when another service has the folder, or the error of using it.
  package init(path: String) throws(ServiceError) {
    let folder: ImageFolder
    do throws(IOError) {
      folder = try ImageFolder(path: path)
      lock =
        folder.contains("lock")
        ? try folder.open("lock", writable: true) : try folder.create("lock", mode: 0o600)
    } catch { throw ServiceError(error) }
    guard lock.withDescriptor({ flock($0, LOCK_EX | LOCK_NB) }) == 0 else {
      throw ServiceError(
        .imageInUse, "another ploopd uses the state folder \(path)",
        remedy: "end it, or give this one a --state-dir of its own")
    }
    let database = try StateDatabase(in: folder, path: path)
    self.database = database
    damages = database.damages
    last = Locked(
      try storing { try database.queue.read { try StateTransaction($0).revision() } })
  }

  /// The greatest revision that was given out; it is known without asking the database.
  var lastRevision: UInt64 { last.withLock { $0 } }

  /// Makes changes that belong together. They are durable when this returns; when it throws, nothing
  /// was changed.
  func write<Result>(
    _ body: (StateTransaction) throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    let (result, revision) = try storing {
      try database.queue.write { database in
        let transaction = StateTransaction(database)
        let result = try body(transaction)
        return (result, try transaction.revision())
      }
    }
    last.withLock { $0 = max($0, revision) }
    return result
  }

  func read<Result>(
    _ body: (StateTransaction) throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    try storing { try database.queue.read { try body(StateTransaction($0)) } }
  }

  func save(_ record: DeviceRecord) throws(ServiceError) {
    try write { transaction throws(ServiceError) in try transaction.save(record) }
  }

  func remove(_ id: String) throws(ServiceError) {
    try write { transaction throws(ServiceError) in try transaction.remove(id) }
  }
}
