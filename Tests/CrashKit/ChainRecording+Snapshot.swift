internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

// Snapshots, with guests at every moment that matters.

extension ChainRecording {
  /// What guests do while a snapshot is made.
  struct Guests: Sendable {
    /// Sectors that are written while the disk is flushed ahead, and not by that flush.
    var ahead: [Range<Int>] = []
    /// Sectors that are written as soon as the gate is open again. In some orders that is before anything
    /// of the snapshot is durable.
    var opening: [Range<Int>] = []
    /// Clusters that are zeroed then.
    var trimmed: Range<Int> = 0..<0
    /// Whether a flush comes right behind these.
    var flushes = false
    /// Sectors that are written between what follows the gate, or behind all of it.
    var later: Range<Int> = 0..<0
  }

  /// What a guest has done. It is put into the history when the snapshot is over, since guests come inside
  /// of calls that are recorded.
  private struct Deed: Sendable {
    let kind: History.Kind
    let values: [SectorValue]
    let begunAt: Int
    /// Nil when it failed.
    var endedAt: Int?
  }

  /// Deeds of guests, one after the other.
  private final class Deeds: Sendable {
    private let watch: Watch
    private let list = Locked<[Deed]>([])
    private let failure = Locked<(any Error)?>(nil)

    init(_ watch: Watch) { self.watch = watch }

    var all: [Deed] { list.withLock { $0 } }

    var haveFailed: Bool { failure.withLock { $0 != nil } }

    func requireSuccess() throws {
      if let failure = failure.withLock({ $0 }) { throw failure }
    }

    private var position: Int { watch.trace.events.count }

    /// - Parameter body: returns false if it could not be done now, and nothing of it was.
    @discardableResult
    func add(
      _ kind: History.Kind, _ values: [SectorValue] = [], _ body: () throws -> Bool
    ) -> Bool {
      let number = list.withLock { list in
        list.append(Deed(kind: kind, values: values, begunAt: position))
        return list.count - 1
      }
      do {
        guard try body() else {
          _ = list.withLock { $0.remove(at: number) }
          return false
        }
        list.withLock { $0[number].endedAt = position }
      } catch { failure.withLock { $0 = $0 ?? error } }
      return true
    }

    func write(_ values: [SectorValue], to device: Device) {
      add(.change(durable: false), values) {
        try device.write(
          ChainRecording.region(values), at: ChainRecording.offset(values), durable: false)
        return true
      }
    }

    /// - Returns: whether requests were admitted.
    func writeNow(_ values: [SectorValue], to device: Device) -> Bool {
      add(.change(durable: false), values) {
        device.writeNow(ChainRecording.region(values), at: ChainRecording.offset(values))
      }
    }
  }

  /// - Parameters:
  ///   - guests: who comes meanwhile.
  ///   - checkpoint: begins at the same instant.
  /// - Returns: its number among ``frozen``.
  @discardableResult
  func snapshot(_ guests: Guests = Guests(), beginning checkpoint: String? = nil) throws -> Int {
    guard let device else { return 0 }
    let guid = GUID.random()
    let deeds = Deeds(watch)
    // One that finds no room inside the sync of a round waits for that round, here on its own thread.
    let ahead = triesAgain ? [] : guests.ahead.map(newValues)
    let values = current
    let opening = guests.opening.map(newValues)
    let trimmed = zeroes(guests.trimmed)
    let later = newValues(guests.later)
    let isLaterDone = Locked(false)
    let momentAt = Locked<Int?>(nil)
    let watch = watch

    let top = try file.read().chain(to: file.read().topGUID).last?.file ?? ""
    watch.admit([
      // The copies of the round are taken by now: it misses what is mapped here.
      Watch.Guest { operation, path, renamed in
        guard case .sync = operation else { return false }
        return path.hasSuffix("/\(top)") && !renamed.contains(where: ChainRecording.isDescriptor)
      } body: {
        ahead.forEach { deeds.write($0, to: device) }
      },
      // The gate is closed, and what is kept there comes before anybody else when it opens.
      Watch.Guest { operation, _, _ in
        guard case .rename(let name) = operation else { return false }
        return ChainRecording.isDescriptor(name)
      } body: {
        momentAt.withLock { $0 = deeds.all.count }
        _ = device.keep {
          opening.forEach { deeds.write($0, to: device) }
          if !trimmed.isEmpty {
            deeds.add(.change(durable: false), trimmed) {
              try device.writeZeroes(
                offset: ChainRecording.offset(trimmed),
                length: UInt64(trimmed.count * History.sectorBytes), keepAllocated: false,
                onlyIfFast: false, durable: false)
              return true
            }
          }
          if guests.flushes {
            deeds.add(.flush) {
              try device.flush()
              return true
            }
          }
        }
      },
      Watch.Guest { operation, path, renamed in
        guard case .sync = operation, !path.contains(".checkpoints") else { return false }
        return renamed.contains(where: ChainRecording.isDescriptor)
      } body: {
        let isDone = later.isEmpty || deeds.writeNow(later, to: device)
        isLaterDone.withLock { $0 = isDone }
      },
    ])
    defer { watch.admit([]) }
    notes.append((guid, Array("\(guid)".utf8)))
    let number = frozen.count
    frozen.append(
      Frozen(
        guid: guid, values: values, clusters: geometry.clusterCount, madeAt: .max, isLive: true))
    let new = checkpoint.map(newCheckpoint)
    if let checkpoint {
      kept.append(
        Kept(number: kept.count, name: checkpoint, values: values, madeAt: .max, isLive: true))
    }
    let beganAt = position
    let made: ChainChange.Made
    do {
      made = try change.snapshot(
        device, as: guid, onto: .made, beginning: new,
        notes: .init(of: Self.notesName, with: notes[notes.count - 1].bytes),
        until: .after(seconds: 10))
    } catch {
      record(deeds.all)
      if deeds.haveFailed { frozen[number].spoiltFrom = 0 }
      throw error
    }
    // Only a disk with something to flush ahead has guests then.
    guard let before = momentAt.withLock({ $0 }), before == ahead.count else {
      throw GuestStayedAway(count: deeds.all.count)
    }
    // What was answered before the gate was closed is part of it, and durable once it is.
    record(deeds.all.prefix(before))
    let step = history.begin(.flush, at: beganAt)
    let over = deeds.all.count
    record(deeds.all.prefix(over).dropFirst(before))
    // Where little is to be made durable, some come during what follows.
    defer { record(deeds.all.dropFirst(over)) }
    if deeds.haveFailed { frozen[number].spoiltFrom = 0 }
    try deeds.requireSuccess()
    history.end(step: step, at: position)
    frozen[number].madeAt = position
    if checkpoint != nil { kept[kept.count - 1].madeAt = position }
    try change.end(made)
    if !later.isEmpty, !isLaterDone.withLock({ $0 }) { try write(later) }
    return number
  }

  private struct GuestStayedAway: Error {
    let count: Int
  }

  private static func isDescriptor(_ path: String) -> Bool { path.hasSuffix("/DiskDescriptor.xml") }

  private func record(_ deeds: some Sequence<Deed>) {
    for deed in deeds {
      let step = history.begin(deed.kind, at: deed.begunAt)
      for value in deed.values {
        history.record(step: step, sector: value.sector, value: value.value)
      }
      if let end = deed.endedAt { history.end(step: step, at: end) }
    }
  }
}
