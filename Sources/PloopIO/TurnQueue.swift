/// What waits, of several parties: the parties take turns, and what one of them has waiting goes in its order.
struct TurnQueue<Element> {
  private var lines: [UInt64: Line<Element>] = [:]
  /// The parties that have something waiting, by whose turn is next.
  private var turns = Line<UInt64>()
  private(set) var count = 0

  mutating func append(_ element: Element, of party: UInt64) {
    if lines[party] == nil { turns.append(party) }
    lines[party, default: Line()].append(element)
    count += 1
  }

  mutating func popFirst() -> Element? {
    guard let party = turns.popFirst(), let index = lines.index(forKey: party),
      let next = lines.values[index].popFirst()
    else { return nil }
    count -= 1
    if lines.values[index].isEmpty { lines.remove(at: index) } else { turns.append(party) }
    return next
  }
}

/// First in, first out.
private struct Line<Element> {
  private static var compactedCount: Int { 1_024 }

  private var elements: [Element] = []
  private var head = 0

  var isEmpty: Bool { head == elements.count }

  mutating func append(_ element: Element) { elements.append(element) }

  mutating func popFirst() -> Element? {
    guard !isEmpty else { return nil }
    let first = elements[head]
    head += 1
    if isEmpty {
      elements.removeAll(keepingCapacity: true)
      head = 0
    } else if head >= Self.compactedCount {
      elements.removeFirst(head)
      head = 0
    }
    return first
  }
}
