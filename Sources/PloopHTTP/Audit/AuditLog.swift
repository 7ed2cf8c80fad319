internal import PloopControl
internal import PloopIO
internal import PloopJSON

/// Writes down who has changed what, and who was refused: one line of JSON for each, chained
/// (``AuditChain``). Whatever becomes of the log, requests are answered; what it lacks it says itself.
///
/// A thread of its own writes, since the disk of a log may hang. Answers wait for their lines for a second, and
/// for none while it does not move.
package final class AuditLog: Sendable {
  private struct Entry {
    let members: [JSON.Member]
    /// What was left out since the entry before.
    let suppressed: UInt64
    let lost: UInt64
  }

  private struct State {
    var waiting: [Entry] = []
    /// Entries that were ever added, and those of them that are done with.
    var added: UInt64 = 0
    var done: UInt64 = 0
    var suppressed: UInt64 = 0
    var lost: UInt64 = 0
    var budgets = RefusalBudgets()
    /// Somebody has waited in vain, and nothing was written since.
    var isStuck = false
    var isFailing = false
    /// Whether it is known if the file can be opened.
    var hasBegun = false
    /// No entry comes any more.
    var isEnding = false
    /// It is an end that the next life is to hear of.
    var isEndNoted = false
    var hasEnded = false
    var lineCount: UInt64 = 0
    var lostCount: UInt64 = 0
  }

  private static let mostWaiting = 1_000
  /// What was written is on the disk after that at the latest.
  private static let syncMilliseconds = 1_000

  private let patienceMilliseconds: Int
  private let state = Monitor(State())

  /// Goes on behind what the file has, or behind what it had when it was moved away.
  ///
  /// - Parameters:
  ///   - headPath: a small file that says where the chain has come to.
  ///   - patienceMilliseconds: how long an answer waits for its line.
  ///   - complain: told when lines begin to be lost, and when they no longer are.
  package init(
    path: String, headPath: String, patienceMilliseconds: Int = 1_000,
    complain: @escaping @Sendable (String) -> Void
  ) {
    self.patienceMilliseconds = patienceMilliseconds
    let state = state
    do throws(IOError) {
      try Thread(name: "audit") {
        AuditLog.write(
          state, AuditFile(path: path, headPath: headPath, complain: complain), complain)
      }.detach()
    } catch {
      state.update { state in
        state.isFailing = true
        state.hasEnded = true
      }
      complain("the audit log cannot be written: \(error)")
    }
    // Whether it can be opened is known to whoever asks for its health.
    _ = state.wait(until: .after(milliseconds: patienceMilliseconds)) { state in
      state.hasBegun || state.hasEnded ? true : nil
    }
  }

  deinit { state.update { $0.isEnding = true } }

  /// Writes what waits and notes that this is the end: the next life has no crash to tell of.
  package func close() {
    state.update { state in
      state.isEnding = true
      state.isEndNoted = true
    }
    _ = state.wait(until: .after(milliseconds: 5 * patienceMilliseconds)) { state in
      state.hasEnded ? true : nil
    }
  }

  /// Whether the last line could not be written.
  var isFailing: Bool { state.withLock { $0.isFailing || $0.isStuck } }

  var metrics: [Metric] {
    let (lines, lost) = state.withLock { ($0.lineCount, $0.lostCount) }
    return [
      Metric(.counter, "ploopd_audit_lines_total", "Lines of the audit log.", Double(lines)),
      Metric(
        .counter, "ploopd_audit_lost_total", "Lines of the audit log that could not be written.",
        Double(lost)),
    ]
  }

  /// - Parameter refused: who was refused, nil where nobody was: of refusals only so many are written.
  func append(
    _ members: [JSON.Member], refused: String?, now: UInt64 = monotonicNanoseconds()
  ) {
    let number: UInt64? = state.update { state in
      if let refused, !state.budgets.take(of: refused, now) {
        state.suppressed &+= 1
        return nil
      }
      guard state.waiting.count < AuditLog.mostWaiting, !state.isEnding, !state.hasEnded else {
        state.lost &+= 1
        state.lostCount &+= 1
        return nil
      }
      state.waiting.append(
        Entry(members: members, suppressed: state.suppressed, lost: state.lost))
      (state.suppressed, state.lost) = (0, 0)
      state.added += 1
      return state.isStuck ? nil : state.added
    }
    guard let number else { return }
    let isDone = state.wait(until: .after(milliseconds: patienceMilliseconds)) { state in
      state.done >= number || state.hasEnded ? true : nil
    }
    if isDone == nil { state.withLock { $0.isStuck = $0.done < number } }
  }

  // MARK: The thread

  private static func write(
    _ state: Monitor<State>, _ file: AuditFile, _ complain: @Sendable (String) -> Void
  ) {
    attempt(state, complain) { () throws(IOError) in try file.begin() }
    state.update { $0.hasBegun = true }
    // Answers wait for their lines, and so for a sync that is under way: it is made once a second at most.
    var syncDue: Deadline?
    while true {
      let entries: [Entry]? = state.wait(until: syncDue ?? .never) { state in
        if !state.waiting.isEmpty {
          defer { state.waiting = [] }
          return .some(state.waiting)
        }
        return state.isEnding ? .some([]) : nil
      }
      if let entries, entries.isEmpty { break }
      for entry in entries ?? [] {
        let isWritten = attempt(state, complain) { () throws(IOError) in
          try file.add(entry.members, suppressed: entry.suppressed, lost: entry.lost)
        }
        state.update { state in
          state.done += 1
          state.isStuck = false
          if isWritten { state.lineCount &+= 1 } else { state.lostCount &+= 1 }
        }
      }
      if syncDue?.hasPassed == true {
        file.sync()
        syncDue = nil
      } else {
        syncDue = syncDue ?? .after(milliseconds: syncMilliseconds)
      }
    }
    file.sync()
    let (suppressed, lost, isNoted) = state.withLock { ($0.suppressed, $0.lost, $0.isEndNoted) }
    if isNoted { file.end(suppressed: suppressed, lost: lost) }
    state.update { $0.hasEnded = true }
  }

  @discardableResult
  private static func attempt(
    _ state: Monitor<State>, _ complain: @Sendable (String) -> Void,
    _ body: () throws(IOError) -> Void
  ) -> Bool {
    let wasFailing = state.withLock { $0.isFailing }
    do throws(IOError) { try body() } catch {
      if !wasFailing { complain("the audit log cannot be written: \(error)") }
      state.update { $0.isFailing = true }
      return false
    }
    if wasFailing { complain("the audit log is written again") }
    state.update { $0.isFailing = false }
    return true
  }
}

/// How many refusals are written down of each who is refused, and of all that nobody knows: a few at once, then
/// so many a second.
private struct RefusalBudgets {
  private static let mostKnown = 256

  private var budgets: [String: RefusalBudget] = [:]

  mutating func take(of name: String, _ now: UInt64) -> Bool {
    // Whom it has not seen for a while it may forget.
    if budgets.count >= RefusalBudgets.mostKnown, budgets[name] == nil {
      budgets = budgets.filter { !$0.value.isFull(now) }
      if budgets.count >= RefusalBudgets.mostKnown { return false }
    }
    return budgets[name, default: RefusalBudget()].take(now)
  }
}

private struct RefusalBudget {
  private static let most = 100.0
  private static let inASecond = 10.0
  private var left = most
  private var at: UInt64?

  func isFull(_ now: UInt64) -> Bool {
    guard let at, now > at else { return false }
    return left + Double(now - at) / 1e9 * RefusalBudget.inASecond >= RefusalBudget.most
  }

  mutating func take(_ now: UInt64) -> Bool {
    if let at, now > at {
      left = min(RefusalBudget.most, left + Double(now - at) / 1e9 * RefusalBudget.inASecond)
    }
    at = max(now, at ?? 0)
    guard left >= 1 else { return false }
    left -= 1
    return true
  }
}
