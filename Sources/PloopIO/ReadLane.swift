internal import CLinux
internal import Glibc

/// Reads of one thread that wait for a disk: on a ring of the kernel's (io_uring) where there are
/// rings, else on the engine's threads.
///
/// All methods are called by the thread that made the lane, and what they complete runs there too;
/// what an engine thread completes runs on that one. The bell is rung when ``reap()`` has something
/// to do. A ring is made with the first read that needs it.
package final class ReadLane: @unchecked Sendable {
  /// Told once how many bytes were read; fewer than asked only at the end of the file.
  package typealias Completion = @Sendable (Result<Int, IOError>) -> Void

  private static let entries: UInt32 = 128

  private struct Pending: Sendable {
    let file: ImageFile
    let region: ByteRegion
    let offset: UInt64
    var done = 0
    let completion: Completion
  }

  private let engine: IOEngine
  private let party: UInt64
  private let bell: Bell
  private var ring: Ring?
  private var wantsRing: Bool
  private var pending: [Pending?] = []
  private var free: [Int] = []
  private var inFlight = 0
  /// Whether the kernel has not been told of everything yet.
  private var queued = false

  /// - Parameter party: for whom the engine's threads read (``IOEngine/submit(for:_:)``).
  package init(_ engine: IOEngine, for party: UInt64 = 0, bell: Bell) {
    self.engine = engine
    self.party = party
    self.bell = bell
    wantsRing = engine.hasRings
  }

  /// Whether so many reads can be begun without a thread of the engine: whoever holds something that
  /// others on the engine wait for must not wait for one of its threads.
  package func hasRoom(for count: Int) -> Bool {
    openRing()
    return ring != nil && inFlight + count <= Int(ReadLane.entries)
  }

  private func openRing() {
    guard wantsRing, ring == nil else { return }
    ring = Ring.open(entries: ReadLane.entries, bell: bell)
    wantsRing = ring != nil
  }

  /// Begins a read; it may be submitted only with ``submit()``.
  package func read(
    _ file: ImageFile, into region: ByteRegion, at offset: UInt64,
    completion: @escaping Completion
  ) {
    openRing()
    let read = Pending(file: file, region: region, offset: offset, completion: completion)
    if let ring, inFlight < Int(ReadLane.entries), begin(read, ring) { return }
    engine.submit(for: party) {
      do throws(IOError) {
        completion(.success(try file.read(into: region, at: offset)))
      } catch {
        completion(.failure(error))
      }
    }
  }

  private func begin(_ read: Pending, _ ring: Ring) -> Bool {
    let slot = free.popLast() ?? pending.count
    if slot == pending.count { pending.append(nil) }
    switch start(read, slot, ring) {
    case .queued:
      pending[slot] = read
      inFlight += 1
      return true
    case .failed(let error):
      free.append(slot)
      read.completion(.failure(error))
      return true
    case .refused:
      free.append(slot)
      return false
    }
  }

  private enum Start {
    case queued
    case failed(IOError)
    /// There is no room, or a fault is to be waited for.
    case refused
  }

  private func start(_ read: Pending, _ slot: Int, _ ring: Ring) -> Start {
    let offset = read.offset + UInt64(read.done)
    var rest = read.region.slice(read.done, read.region.count - read.done)
    switch read.file.permit(readOf: rest.count, at: offset) {
    case .bytes(let count): rest = rest.slice(0, count)
    case .fails(let code):
      return .failed(IOError("read", path: read.file.path, code: code, offset: offset))
    case .waits: return .refused
    }
    let isQueued = read.file.withDescriptor {
      ring.read($0, into: rest, at: offset, tag: UInt64(slot))
    }
    queued = queued || isQueued
    return isQueued ? .queued : .refused
  }

  /// Has the engine ask for a range of a file that will be wanted soon.
  package func readAhead(_ file: ImageFile, offset: UInt64, length: UInt64) {
    engine.submit(for: party) { file.readAhead(offset: offset, length: length) }
  }

  /// Gives the kernel what was begun, with one call.
  package func submit() {
    guard queued, let ring else { return }
    enter(ring)
  }

  /// What the kernel does not take, being short of memory, is offered again soon: nothing else would
  /// ring the bell for it.
  private func enter(_ ring: Ring) {
    ring.enter(wait: 0)
    queued = ring.hasUntaken
    if queued { bell.ring() }
  }

  /// Completes what is complete.
  package func reap() {
    guard inFlight > 0, let ring else { return }
    enter(ring)
    complete(ring)
    submit()
  }

  /// Waits until every read that is on the ring is complete.
  package func drain() {
    while inFlight > 0, let ring {
      ring.enter(wait: 1)
      complete(ring)
    }
  }

  private func complete(_ ring: Ring) {
    while let (tag, result) = ring.next() {
      guard let slot = Int(exactly: tag), slot < pending.count, var read = pending[slot] else {
        continue
      }
      let count = Int(result)
      if count > 0 { read.done += count }
      let isInterrupted = count == -Int(EINTR) || count == -Int(EAGAIN)
      // A short read is continued: only at the end of the file nothing more comes.
      if read.done < read.region.count, count > 0 || isInterrupted,
        case .queued = start(read, slot, ring)
      {
        pending[slot] = read
        continue
      }
      pending[slot] = nil
      free.append(slot)
      inFlight -= 1
      finish(read, count)
    }
  }

  private func finish(_ read: Pending, _ count: Int) {
    if read.done == read.region.count || count == 0 { return read.completion(.success(read.done)) }
    let rest = read.region.slice(read.done, read.region.count - read.done)
    guard count < 0, count != -Int(EINTR), count != -Int(EAGAIN) else {
      // The ring would not go on with it.
      engine.submit(for: party) {
        do throws(IOError) {
          let more = try read.file.read(into: rest, at: read.offset + UInt64(read.done))
          read.completion(.success(read.done + more))
        } catch {
          read.completion(.failure(error))
        }
      }
      return
    }
    read.completion(
      .failure(
        IOError("read", path: read.file.path, code: Int32(clamping: -count), offset: read.offset)))
  }
}

/// One io_uring.
private final class Ring {
  private let ring: UnsafeMutablePointer<clinux_ring>
  /// The kernel rings it for as long as the ring lives.
  private let bell: Bell

  /// Nil where the kernel, or what confines this process, gives none.
  static func open(entries: UInt32, bell: Bell) -> Ring? {
    let ring = UnsafeMutablePointer<clinux_ring>.allocate(capacity: 1)
    guard withExtendedLifetime(bell, { clinux_ring_open(ring, entries, bell.number) }) == 0 else {
      ring.deallocate()
      return nil
    }
    return Ring(ring, bell)
  }

  private init(_ ring: UnsafeMutablePointer<clinux_ring>, _ bell: Bell) {
    self.ring = ring
    self.bell = bell
  }

  deinit {
    clinux_ring_close(ring)
    ring.deallocate()
  }

  func read(_ descriptor: Int32, into region: ByteRegion, at offset: UInt64, tag: UInt64) -> Bool {
    clinux_ring_read(ring, descriptor, region.start, UInt32(clamping: region.count), offset, tag)
      == 0
  }

  func enter(wait: UInt32) {
    while clinux_ring_enter(ring, wait) < 0, errno == EINTR {}
  }

  var hasUntaken: Bool { clinux_ring_untaken(ring) > 0 }

  func next() -> (tag: UInt64, result: Int32)? {
    var tag: UInt64 = 0
    var result: Int32 = 0
    return clinux_ring_next(ring, &tag, &result) == 1 ? (tag, result) : nil
  }
}

extension IOEngine {
  /// Whether the kernel gives this process rings: containers often forbid them, and so does
  /// `kernel.io_uring_disabled`.
  static let ringsExist: Bool = {
    let found = Locked(false)
    // On a thread of its own: when a ring is closed the kernel interrupts the thread that made it.
    let thread = try? Thread(name: "ploopd-probe") {
      guard let bell = try? Bell() else { return }
      let ring = Ring.open(entries: 2, bell: bell)
      found.withLock { $0 = ring != nil }
    }
    thread?.join()
    return found.withLock { $0 }
  }()
}
