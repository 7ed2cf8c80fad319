import Testing

@testable import PloopIO

@Suite("Turns of parties")
struct TurnQueueTests {
  private final class Payload {}

  @Test("nothing that has been taken is kept, though its party has more waiting")
  func releases() throws {
    var queue = TurnQueue<Payload>()
    weak var first: Payload?
    do {
      let payload = Payload()
      first = payload
      queue.append(payload, of: 7)
    }
    for _ in 0..<100 { queue.append(Payload(), of: 7) }
    #expect(first != nil)
    #expect(queue.popFirst() === first)
    #expect(first == nil && queue.count == 100)
  }

  @Test("turns and orders hold however lines grow, empty and are filled by others")
  func order() {
    var queue = TurnQueue<(party: UInt64, index: Int)>()
    var added: [UInt64: Int] = [:]
    var taken: [UInt64: Int] = [:]
    var random = SystemRandomNumberGenerator()
    func take() -> Bool {
      guard let next = queue.popFirst() else { return false }
      let isNext = next.index == taken[next.party, default: 0]
      taken[next.party, default: 0] += 1
      return isNext
    }
    for round in 0..<200 {
      // Of more parties than lines are kept for, and now and then of one that has very many.
      for _ in 0..<(round % 50 == 0 ? 3_000 : 40) {
        let party = round % 50 == 0 ? 1 : UInt64.random(in: 0..<200, using: &random)
        queue.append((party, added[party, default: 0]), of: party)
        added[party, default: 0] += 1
      }
      let least = round % 10 == 9 ? 0 : queue.count / 2
      var isInOrder = true
      while queue.count > least { isInOrder = take() && isInOrder }
      #expect(isInOrder)
    }
    #expect(queue.popFirst() == nil && queue.count == 0 && added == taken)
    for index in 0..<3 { for party: UInt64 in [5, 6] { queue.append((party, index), of: party) } }
    var parties: [UInt64] = []
    while let next = queue.popFirst() { parties.append(next.party) }
    #expect(parties == [5, 6, 5, 6, 5, 6])
  }
}
