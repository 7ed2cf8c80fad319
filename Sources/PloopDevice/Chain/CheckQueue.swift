internal import PloopIO

/// Who carries the checks of indexes out (``IndexCheck``), and the counts behind them: a few threads, which are there
/// only as long as there is something to do.
///
/// Disks stand in a line with those that lie on the same file systems: one that does not answer keeps nobody waiting who
/// does not lie on it. Nobody waits for a count, so checks come before them, and one that has begun makes room.
package final class CheckQueue: Sendable {
  /// For all disks of the process.
  package static let shared = CheckQueue()

  private struct Entry {
    let owner: ObjectIdentifier
    let work: @Sendable () -> Void
  }

  private struct Line {
    var checks: [Entry] = []
    var counts: [Entry] = []
    var workers = 0

    mutating func next() -> Entry? {
      if !checks.isEmpty { return checks.removeFirst() }
      return counts.isEmpty ? nil : counts.removeFirst()
    }

    mutating func remove(_ owner: ObjectIdentifier) -> [Entry] {
      let removed = (checks + counts).filter { $0.owner == owner }
      checks.removeAll { $0.owner == owner }
      counts.removeAll { $0.owner == owner }
      return removed
    }
  }

  private let workerLimit: Int
  private let lines = Locked<[Set<UInt64>: Line]>([:])

  /// - Parameter workerLimit: threads for each line; with 0 nothing ever begins.
  package init(workerLimit: Int = 2) { self.workerLimit = workerLimit }

  /// Has an index checked.
  ///
  /// - Parameters:
  ///   - owner: by which ``remove(_:)`` finds it.
  ///   - filesystems: on which the disk's files lie.
  func check(
    _ owner: AnyObject, on filesystems: Set<UInt64>, _ work: @escaping @Sendable () -> Void
  ) {
    add(Entry(owner: ObjectIdentifier(owner), work: work), to: \.checks, filesystems)
  }

  /// Has clusters counted, when nothing is to be checked.
  func count(
    _ owner: AnyObject, on filesystems: Set<UInt64>, _ work: @escaping @Sendable () -> Void
  ) {
    add(Entry(owner: ObjectIdentifier(owner), work: work), to: \.counts, filesystems)
  }

  /// Whether a disk waits for its check that lies on these file systems.
  func isAwaited(on filesystems: Set<UInt64>) -> Bool {
    lines.withLock { $0[filesystems]?.checks.isEmpty == false }
  }

  /// What has not begun is not wanted any more, and keeps no file open.
  func remove(_ owner: AnyObject) {
    // What they hold ends outside of the lock.
    _ = lines.withLock { lines in
      var removed: [Entry] = []
      for (filesystems, var line) in lines {
        removed += line.remove(ObjectIdentifier(owner))
        let isOver = line.checks.isEmpty && line.counts.isEmpty && line.workers == 0
        lines[filesystems] = isOver ? nil : line
      }
      return removed
    }
  }

  private func add(
    _ entry: Entry, to kind: WritableKeyPath<Line, [Entry]>, _ filesystems: Set<UInt64>
  ) {
    let begins = lines.withLock { lines in
      var line = lines[filesystems] ?? Line()
      defer { lines[filesystems] = line }
      line[keyPath: kind].append(entry)
      guard line.workers < workerLimit else { return false }
      line.workers += 1
      return true
    }
    guard begins else { return }
    do throws(IOError) {
      try Thread(name: "index-check") { [self] in drain(filesystems) }.detach()
    } catch {
      // No room for a thread: whoever attaches does it.
      drain(filesystems)
    }
  }

  private func drain(_ filesystems: Set<UInt64>) {
    while let entry = next(filesystems) { entry.work() }
  }

  private func next(_ filesystems: Set<UInt64>) -> Entry? {
    lines.withLock { lines in
      guard var line = lines[filesystems] else { return nil }
      defer { lines[filesystems] = line.workers == 0 ? nil : line }
      let next = line.next()
      if next == nil { line.workers -= 1 }
      return next
    }
  }
}
