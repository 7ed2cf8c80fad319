package import PloopIO

/// What an NBD client can read and write: a disk, seen through one name.
///
/// Offsets and lengths have been checked against ``size`` before any method is called, no length is 0,
/// and writing methods are never called on a read-only export. Methods named `…Now` never wait: they answer
/// false, with nothing done that could be seen, when the request has to go the slow way. All others
/// may wait for a disk, a lock or a gate, and are called on the I/O engine only.
package protocol Export: AnyObject, Sendable {
  /// Bytes; fixed as long as this object lives (NBD has no message for a change of size).
  var size: UInt64 { get }
  var isReadOnly: Bool { get }
  /// What clients should align to, in bytes: a power of two from 512 on.
  var preferredBlockSize: UInt32 { get }
  /// For people, in LIST and INFO; may be empty.
  var summary: String { get }

  /// How fast its clients may go; nil for one that is never limited.
  var throttle: RequestThrottle? { get }

  /// Whether what has been done may be answered: asked before anything is sent, and behind all that it answers. False
  /// once the disk may be somebody else's; the client gets no answer then, and has to come again.
  var mayAnswer: Bool { get }

  /// Keeps `work` for as long as every request would have to wait, and calls it then: a disk that
  /// admits nobody must not take the engine's threads from all others. It must not wait itself.
  ///
  /// - Returns: false, with nothing kept, when requests are admitted.
  func keep(_ work: @escaping @Sendable () -> Void) -> Bool

  /// The same for requests that change the disk; by default no others are meant.
  func keepChange(_ work: @escaping @Sendable () -> Void) -> Bool

  func readNow(into region: ByteRegion, at offset: UInt64, holes: inout HoleList) -> Bool
  func writeNow(_ region: ByteRegion, at offset: UInt64) -> Bool

  /// Lends what a read would copy, from its beginning on, as far as it is in one piece; never waits.
  ///
  /// - Parameters:
  ///   - least: fewer bytes than that are not worth it.
  ///   - files: what the borrower keeps open until it has sent what it borrows.
  func lendNow(
    _ count: Int, least: Int, at offset: UInt64, holding files: Borrowed<FileTable>?
  ) -> PageLending

  /// The client has taken what so many loans with this ticket were for.
  func takeBack(_ ticket: UInt64, count: UInt64)

  /// Pages that were lent could not be read: nothing is lent any more, so that whoever asks again is told.
  func stopLending()

  /// Begins a read whose disk is waited for on the lane, and on no thread if the lane is a ring.
  ///
  /// - Parameter completion: called once, on the lane's thread or one of the engine's.
  /// - Returns: false, with nothing begun, when something other than a disk has to be waited for.
  func beginRead(
    into region: ByteRegion, at offset: UInt64, on lane: ReadLane,
    completion: @escaping @Sendable (Result<HoleList, NBDError>) -> Void
  ) -> Bool

  /// Fills the region, zeroes where nothing is allocated, and says where that was.
  func read(
    into region: ByteRegion, at offset: UInt64, holes: inout HoleList
  ) throws(NBDError)

  /// - Parameter durable: FUA: the data, and what is needed to find it, is on stable storage when
  ///   this returns. The same for ``trim(offset:length:durable:)`` and ``writeZeroes(offset:length:mode:durable:)``.
  func write(_ region: ByteRegion, at offset: UInt64, durable: Bool) throws(NBDError)

  /// What was written before is on stable storage, and so is what is needed to find it: the second
  /// half of a write with FUA.
  func commit() throws(NBDError)

  /// Everything that was replied to before, on any connection, is on stable storage afterwards.
  func flush() throws(NBDError)

  func trim(offset: UInt64, length: UInt64, durable: Bool) throws(NBDError)

  func writeZeroes(
    offset: UInt64, length: UInt64, mode: ZeroMode, durable: Bool
  ) throws(NBDError)

  /// What ``writeZeroes(offset:length:mode:durable:)`` would refuse of a whole range that is to be zeroed fast.
  func requireFastZero(offset: UInt64, length: UInt64) throws(NBDError)

  /// Reads the range into the page cache.
  func cache(offset: UInt64, length: UInt64) throws(NBDError)

  /// Like ``extents(offset:length:limit:)``; nil when that would wait or take long.
  func extentsNow(offset: UInt64, length: UInt64, limit: Int) -> [Extent]?

  /// The allocation of the range from its start on, neighbours merged.
  ///
  /// - Parameter limit: at most so many extents; fewer bytes than asked may be described.
  /// - Returns: at least one extent; their lengths add up to at most `length`.
  func extents(offset: UInt64, length: UInt64, limit: Int) throws(NBDError) -> [Extent]

  /// What a client may select now, ``Context/allocation`` among it.
  var contexts: [Context] { get }

  /// Like ``extents(offset:length:limit:)``: which delta has the content, counted from the newest, which
  /// is 1; 0 where none has.
  func depths(offset: UInt64, length: UInt64, limit: Int)
    throws(NBDError) -> [(length: UInt64, depth: Int)]

  /// Like ``extents(offset:length:limit:)``: what may have been written since a bitmap began. Of one that
  /// is there no more, everything.
  func dirtyRuns(of bitmap: String, offset: UInt64, length: UInt64, limit: Int)
    throws(NBDError) -> [(length: UInt64, isDirty: Bool)]
}

extension Export {
  /// Has the engine do `work` when requests are admitted: a disk that admits nobody takes none of its threads.
  ///
  /// - Parameters:
  ///   - party: for whom (``IOEngine/submit(for:_:)``).
  ///   - isChange: whether it changes the disk.
  package func perform(
    on engine: IOEngine, for party: UInt64 = 0, isChange: Bool = false,
    _ work: @escaping @Sendable () -> Void
  ) {
    @Sendable func run() {
      @Sendable func again() { engine.submit(for: party, run) }
      if !(isChange ? keepChange(again) : keep(again)) { work() }
    }
    engine.submit(for: party, run)
  }

  package var throttle: RequestThrottle? { nil }

  package var mayAnswer: Bool { true }

  package func keep(_ work: @escaping @Sendable () -> Void) -> Bool { false }

  package func keepChange(_ work: @escaping @Sendable () -> Void) -> Bool { keep(work) }

  package func lendNow(
    _ count: Int, least: Int, at offset: UInt64, holding files: Borrowed<FileTable>?
  ) -> PageLending { .nothing }

  package func takeBack(_ ticket: UInt64, count: UInt64) {}

  package func stopLending() {}

  package func requireFastZero(offset: UInt64, length: UInt64) throws(NBDError) {}

  package var contexts: [Context] { [.allocation] }

  package func depths(
    offset: UInt64, length: UInt64, limit: Int
  ) throws(NBDError) -> [(length: UInt64, depth: Int)] {
    throw NBDError(.invalid, "this export has no depths")
  }

  package func dirtyRuns(
    of bitmap: String, offset: UInt64, length: UInt64, limit: Int
  ) throws(NBDError) -> [(length: UInt64, isDirty: Bool)] {
    throw NBDError(.invalid, "this export has no bitmap \(bitmap)")
  }
}

/// A run of bytes with the same allocation (NBD `base:allocation`).
package struct Extent: Equatable, Sendable {
  package var length: UInt64
  package var isHole: Bool
  package var readsZero: Bool

  package init(length: UInt64, isHole: Bool, readsZero: Bool) {
    self.length = length
    self.isHole = isHole
    self.readsZero = readsZero
  }
}

package struct ZeroMode: OptionSet, Sendable {
  package let rawValue: UInt8
  package init(rawValue: UInt8) { self.rawValue = rawValue }

  /// NBD_CMD_FLAG_NO_HOLE: the range stays (or becomes) allocated.
  package static let keepAllocated = ZeroMode(rawValue: 1)
  /// NBD_CMD_FLAG_FAST_ZERO: refused with ENOTSUP, and nothing changed, unless it is quicker than
  /// writing zeroes.
  package static let onlyIfFast = ZeroMode(rawValue: 2)
}

/// Why a request failed: a kind that has a number on the wire, words for a person, and where known
/// the place.
package struct NBDError: Error, Sendable {
  package enum Kind: Sendable {
    case notPermitted, io, invalid, noSpace, overflow, notSupported, shuttingDown
  }

  package let kind: Kind
  package let message: String
  /// The first byte of the export that could not be read.
  package let offset: UInt64?

  package init(_ kind: Kind, _ message: String, at offset: UInt64? = nil) {
    self.kind = kind
    self.message = message
    self.offset = offset
  }
}

/// Finds exports by name. Names are bytes: no NBD peer normalises Unicode, so neither do we.
package protocol ExportDirectory: AnyObject, Sendable {
  associatedtype Door: Export

  /// Name and description of each that this client may use, in a stable order.
  func list(for visitor: Visitor) -> [(name: [UInt8], summary: String)]

  /// Nil when there is none of that name; throws when it is there but does not take this client now.
  func export(named name: [UInt8], for visitor: Visitor) throws(DoorRefusal) -> Door?
}
