internal import GRDB
internal import Glibc
package import PloopIO

/// The state folder: a database of what survives the service, and a lock that keeps a second
/// service out.
///
/// Every call may wait for a disk, so none is made by a thread of Swift's own pool.
package final class Store: Sendable {
  let database: StateDatabase
  private let revisions: Locked<Revisions>
  private let commits = Locked(
    Metric.Histogram([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10]))
  private let shown = Observer<Void>()
  private struct Revisions {
    /// The greatest that was given out.
    var last: UInt64
    /// Of each transaction whose effects cannot be seen yet, the first.
    var unshown: [UInt64: UInt64] = [:]
    var nextTicket: UInt64 = 0

    mutating func begin(_ revision: UInt64) -> UInt64 {
      nextTicket += 1
      unshown[nextTicket] = revision
      return nextTicket
    }
  }

  /// What was found damaged when the folder was opened, in words.
  let damages: [String]
  /// For what is kept beside the database.
  let folder: ImageFolder
  /// Held as long as the service lives.
  private let lock: ImageFile

  /// - Parameter probe: watches what is kept beside the database.
  /// - Throws: `image-in-use` when another service has the folder, or the error of using it.
  package init(path: String, probe: (any IOProbe)? = nil) throws(ServiceError) {
    do throws(IOError) {
      folder = try ImageFolder(path: path, probe: probe)
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
    revisions = Locked(
      Revisions(
        last: try storing { try database.queue.read { try StateTransaction($0).revision() } }))
  }

  /// The greatest revision that was given out; it is known without asking the database.
  var lastRevision: UInt64 { revisions.withLock { $0.last } }

  /// The revision up to which everything is in the database and can be seen. A transaction that ends
  /// before an earlier one can be seen waits for that: who reads up to here misses nothing.
  var shownRevision: UInt64 {
    revisions.withLock { revisions in
      min(revisions.last, (revisions.unshown.values.min() ?? .max) - 1)
    }
  }

  /// - Parameter tell: called after each transaction that gave out revisions, once it can be seen.
  func whenShown(_ tell: @escaping @Sendable () -> Void) { shown.set(tell) }

  /// Makes changes that belong together. They are durable when this returns; when it throws, nothing
  /// was changed.
  ///
  /// - Parameter show: makes the change visible to those who look at the service. Nobody hears of its
  ///   events before.
  func write<Result>(
    _ body: (StateTransaction) throws(ServiceError) -> Result, show: (Result) -> Void = { _ in }
  ) throws(ServiceError) -> Result {
    var ticket: UInt64?
    defer { close(ticket) }
    let result = try transact(&ticket, body)
    show(result)
    return result
  }

  /// - Parameter ticket: of the revisions that it gives out, if any: nobody reads beyond them while that is there.
  private func transact<Result>(
    _ ticket: inout UInt64?, _ body: (StateTransaction) throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    // Asked here: the database may call back on another thread.
    let actor = Requester.name
    let start = monotonicNanoseconds()
    let (result, revision) = try storing {
      try database.queue.write { database in
        let transaction = StateTransaction(database, actor: actor)
        let before = try transaction.revision()
        let result = try body(transaction)
        let revision = try transaction.revision()
        if revision > before { ticket = revisions.withLock { $0.begin(before + 1) } }
        return (result, revision)
      }
    }
    commits.withLock { $0.count(seconds: Double(monotonicNanoseconds() - start) / 1e9) }
    revisions.withLock { $0.last = max($0.last, revision) }
    return result
  }

  /// Revisions of a change that others are told of before it is written down here.
  struct Reservation {
    fileprivate var upcoming: UInt64
    fileprivate let ticket: UInt64?

    /// To be asked as often as was said.
    mutating func next() -> UInt64 {
      defer { upcoming += 1 }
      return upcoming
    }
  }

  /// Gives out revisions that follow one another. Nobody reads beyond them until they are given back, which is when what is written
  /// under them can be seen, or will never be.
  ///
  /// - Parameter known: they are above it.
  func reserve(_ count: Int, above known: UInt64) throws(ServiceError) -> Reservation {
    var ticket: UInt64?
    do throws(ServiceError) {
      let first = try transact(&ticket) { transaction throws(ServiceError) in
        let first = try transaction.nextRevision(above: known)
        for _ in 1..<max(1, count) { _ = try transaction.nextRevision() }
        return first
      }
      return Reservation(upcoming: first, ticket: ticket)
    } catch {
      close(ticket)
      throw error
    }
  }

  func giveBack(_ reservation: Reservation) { close(reservation.ticket) }

  private func close(_ ticket: UInt64?) {
    guard let ticket else { return }
    revisions.withLock { _ = $0.unshown.removeValue(forKey: ticket) }
    shown.tell(())
  }

  var metric: Metric {
    Metric(
      .histogram, "ploopd_db_commit_seconds",
      "How long changes of the state took until they were durable, waiting for others included.",
      [Metric.Sample(.histogram(commits.withLock { $0 }))])
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
