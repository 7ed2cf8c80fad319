import PloopIO
import TestSupport
import Testing

@Suite("Marks that are taken in rounds")
struct MarkSetTests {
  private func marks(_ count: Int, _ marked: [Int] = []) -> MarkSet {
    var bits = Bitmap(count: count)
    for index in marked { bits[index] = true }
    return MarkSet(bits)
  }

  @Test("they are taken upward from the last one, each once, and round")
  func rounds() {
    let set = marks(200, [3, 70, 150])
    #expect(set.take(2).taken == [3, 70])
    set.mark(3...4)
    #expect(set.take(2).taken == [150, 3])
    #expect(set.take(9) == ([4], 0))
    #expect(set.take(9) == ([], 0))
    let facts = set.facts
    #expect(facts.count == 200 && facts.marked == 0 && facts.cursor == 4)
  }

  @Test("they are taken all at once")
  func all() {
    let set = marks(200, [3, 70, 150])
    #expect(set.takeAll().runs == [3..<4, 70..<71, 150..<151])
    #expect(set.facts.marked == 0 && set.facts.count == 200)
    set.mark(5...6)
    var bits = set.takeAll()
    bits.formUnion(Bitmap(allSet: 200))
    #expect(bits.setCount == 200)
    #expect(set.take(9) == ([], 0))
  }

  @Test("one that is marked all the time keeps no other from being taken")
  func fairness() {
    let set = marks(64)
    for round in 0..<10 {
      set.mark(5...5)
      if round == 0 { set.mark(6...6) }
      let taken = set.take(1).taken
      #expect(taken == [round == 1 ? 6 : 5])
    }
  }

  @Test("the row grows, and what is marked tells when it was nothing before")
  func growth() {
    let told = Locked(0)
    let set = MarkSet(Bitmap(count: 2)) { told.withLock { $0 += 1 } }
    set.mark(9...10)
    set.mark(1...1)
    #expect(told.withLock { $0 } == 1)
    #expect(set.facts.count == 11)
    #expect(set.take(9).taken == [9, 10, 1])
    set.mark(0...0)
    #expect(told.withLock { $0 } == 2)
  }

  @Test("runs and bytes of a bitmap are those of its bits", arguments: [0, 1, 63, 64, 65, 130])
  func bytes(count: Int) {
    var random = SeededGenerator(seed: UInt64(count))
    var bits = Bitmap(count: count)
    for index in 0..<count where Bool.random(using: &random) { bits[index] = true }
    let again = Bitmap(bytes: bits.bytes + [0xFF], count: count)
    #expect((0..<count).allSatisfy { again[$0] == bits[$0] })
    #expect(again.setCount == bits.setCount)
    #expect(bits.bytes.count == (count + 7) / 8)
    #expect(bits.runs.flatMap(Array.init) == (0..<count).filter { bits[$0] })
    for index in 0..<count {
      #expect((bits.bytes[index / 8] >> UInt8(index % 8) & 1 == 1) == bits[index])
    }
    for start in 0...count {
      #expect(bits.firstSet(from: start) == (start..<count).first { bits[$0] })
    }
  }
}
