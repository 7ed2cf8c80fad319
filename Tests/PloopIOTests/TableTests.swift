import PloopIO
import Synchronization
import Testing

@Suite("The table of atomic words, and the list of holes")
struct TableTests {
  @Test("an empty table has no pages; storing the default makes none")
  func sparse() {
    let table = AtomicTable(count: 5000, pageShift: 10, defaultWord: .max)
    table[1023] = .max
    #expect((0..<5).allSatisfy { !table.hasPage($0) })
    table[1024] = 7
    #expect((0..<5).map { table.hasPage($0) } == [false, true, false, false, false])
    #expect(table[1023] == .max && table[1024] == 7 && table[1025] == .max && table[4999] == .max)
    table[1024] = .max
    #expect(table[1024] == .max)
  }

  @Test("threads that make the same pages at once lose none of each other's words")
  func concurrentPages() throws {
    for _ in 0..<50 {
      let table = AtomicTable(count: 64, pageShift: 4, defaultWord: 0)
      let threads = try (0..<4).map { thread in
        try Thread(name: "table") {
          for index in stride(from: thread, to: 64, by: 4) { table[index] = UInt64(index + 1) }
        }
      }
      threads.forEach { $0.join() }
      #expect((0..<64).allSatisfy { table[$0] == UInt64($0 + 1) })
    }
  }

  @Test("a table that grows keeps its words, while others read it")
  func grows() throws {
    let table = AtomicTable(count: 40, pageShift: 4, defaultWord: 9)
    for index in 0..<20 { table[index] = UInt64(index) }
    let isOver = Atomic(false)
    let wrong = Atomic(0)
    let readers = try (0..<2).map { _ in
      try Thread(name: "reader") {
        while !isOver.load(ordering: .acquiring) {
          let last = table.count - 1
          let isRight =
            (0..<20).allSatisfy { table[$0] == UInt64($0) } && table[39] == 9 && table[last] == 9
          if !isRight { wrong.wrappingAdd(1, ordering: .relaxed) }
        }
      }
    }
    for count in stride(from: 41, to: 5_000, by: 7) { table.grow(to: count) }
    isOver.store(true, ordering: .releasing)
    readers.forEach { $0.join() }
    #expect(wrong.load(ordering: .relaxed) == 0)
    #expect(table.count == 4_997)
    table[4_996] = 1
    #expect(table[4_996] == 1 && table[4_995] == 9 && table[19] == 19)
    table.grow(to: 10)
    #expect(table.count == 4_997)
  }

  @Test("holes that touch become one; what does not fit is left out; clearing empties the list")
  func holes() {
    var holes = HoleList()
    holes.append(start: 0, count: 10)
    holes.append(start: 10, count: 5)
    holes.append(start: 20, count: 1)
    #expect(holes.runs == [HoleList.Run(start: 0, count: 15), HoleList.Run(start: 20, count: 1)])
    for index in 0..<200 { holes.append(start: 100 + index * 2, count: 1) }
    #expect(holes.runs.count == HoleList.capacity)
    holes.clear()
    #expect(holes.runs.isEmpty)
  }
}
