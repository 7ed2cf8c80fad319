internal import PloopIO

/// The memory that all connections together may hold for requests and replies under way.
///
/// Who asks for more than is left waits. So that nobody waits for memory that only waiters hold,
/// one connection, the favourite, may go beyond the limit; when the excess is gone, the one that
/// has waited longest is the next.
final class MemoryBudget: Sendable {
  private struct State {
    var used = 0
    var favourite: UInt64?
    var waiting: [(id: UInt64, bell: Bell)] = []
  }

  private let limit: Int
  private let state = Locked(State())

  init(limit: Int) { self.limit = limit }

  var used: Int { state.withLock { $0.used } }

  /// Whether somebody waits.
  var isShort: Bool { state.withLock { !$0.waiting.isEmpty } }

  /// - Returns: false when the caller has to wait; its bell is rung when asking again makes sense.
  func take(_ count: Int, for id: UInt64, bell: Bell) -> Bool {
    let (granted, next) = state.withLock { state -> (Bool, Bell?) in
      let fits = count == 0 || count <= limit - state.used
      if !fits, state.favourite == nil { state.favourite = id }
      guard fits || state.favourite == id else {
        if !state.waiting.contains(where: { $0.id == id }) { state.waiting.append((id, bell)) }
        return (false, nil)
      }
      state.used += count
      guard let place = state.waiting.firstIndex(where: { $0.id == id }) else { return (true, nil) }
      state.waiting.remove(at: place)
      return (true, state.waiting.first?.bell)
    }
    next?.ring()
    return granted
  }

  /// - Parameter isLast: whether the connection is leaving and waits for nothing any more.
  func give(_ count: Int, from id: UInt64, isLast: Bool = false) {
    let next = state.withLock { state -> Bell? in
      state.used -= count
      if isLast { state.waiting.removeAll { $0.id == id } }
      if state.used <= limit || isLast && state.favourite == id { state.favourite = nil }
      if state.favourite == nil { state.favourite = state.waiting.first?.id }
      return state.waiting.first?.bell
    }
    next?.ring()
  }
}

/// What one connection holds of the budget, kept by its own thread.
struct MemoryAccount {
  private let budget: MemoryBudget
  private let id: UInt64
  private let bell: Bell
  private let ownBytes: Int
  private(set) var held = 0
  private var isWaiting = false

  /// - Parameter ownBytes: held without being counted against the budget.
  init(budget: MemoryBudget, id: UInt64, bell: Bell, ownBytes: Int) {
    self.budget = budget
    self.id = id
    self.bell = bell
    self.ownBytes = ownBytes
  }

  var othersWait: Bool { budget.isShort }

  private func charge(for held: Int) -> Int { max(0, held - ownBytes) }

  mutating func take(_ count: Int) -> Bool {
    let more = charge(for: held + count) - charge(for: held)
    // Taking nothing ends a wait that the budget knows of.
    if more > 0 || isWaiting {
      isWaiting = !budget.take(more, for: id, bell: bell)
      guard !isWaiting else { return false }
    }
    held += count
    return true
  }

  mutating func give(_ count: Int) {
    let less = charge(for: held) - charge(for: held - count)
    held -= count
    if less > 0 { budget.give(less, from: id) }
  }

  mutating func close() {
    budget.give(charge(for: held), from: id, isLast: true)
    held = 0
  }
}
