/// What waits, of several parties: the parties take turns, and what one of them has waiting goes in its order. What has
/// been taken is kept no longer, and who adds and takes at a steady rate has no memory allocated for it.
struct TurnQueue<Element> {
  /// Lines of nobody that are kept for whoever comes next.
  private static var mostSpares: Int { 64 }

  private var lines: [UInt64: Line<Element>] = [:]
  /// The parties that have something waiting, by whose turn is next.
  private var turns = Line<UInt64>()
  private var spares: [Line<Element>] = []
  private(set) var count = 0

  mutating func append(_ element: Element, of party: UInt64) {
    count += 1
    if let index = lines.index(forKey: party) { return lines.values[index].append(element) }
    turns.append(party)
    var line = spares.popLast() ?? Line()
    line.append(element)
    lines[party] = line
  }

  mutating func popFirst() -> Element? {
    guard let party = turns.popFirst(), let index = lines.index(forKey: party),
      let next = lines.values[index].popFirst()
    else { return nil }
    count -= 1
    guard lines.values[index].isEmpty else {
      turns.append(party)
      return next
    }
    let line = lines.remove(at: index).value
    if spares.count < Self.mostSpares, line.isSmall { spares.append(line) }
    return next
  }
}

/// First in, first out: a ring that grows when it is full.
private struct Line<Element> {
  private static var leastSlots: Int { 16 }
  private static var mostKeptSlots: Int { 1_024 }

  /// As many as a power of two, or none.
  private var slots: [Element?] = []
  private var head = 0
  private var count = 0

  var isEmpty: Bool { count == 0 }
  /// Whether its memory is worth keeping.
  var isSmall: Bool { slots.count <= Self.mostKeptSlots }

  mutating func append(_ element: Element) {
    if count == slots.count { grow() }
    slots[(head + count) & (slots.count - 1)] = element
    count += 1
  }

  mutating func popFirst() -> Element? {
    guard count > 0 else { return nil }
    let first = slots[head].take()
    head = (head + 1) & (slots.count - 1)
    count -= 1
    return first
  }

  private mutating func grow() {
    let ordered = slots[head...] + slots[..<head]
    slots = ordered + Array(repeating: nil, count: max(Self.leastSlots, ordered.count))
    head = 0
  }
}
