import PloopIO
import Testing

#if DEBUG
  @Suite("The order of locks")
  struct LockOrderTests {
    private let order = LockOrder()
    private let first = LockClass(fileID: "House/First.swift", line: 1)
    private let second = LockClass(fileID: "House/Second.swift", line: 2)
    private let third = LockClass(fileID: "House/Third.swift", line: 3)

    @Test("one way is as good as another, as often as one likes")
    func straight() {
      for _ in 0..<2 {
        #expect(order.note(second, holding: [first]) == nil)
        #expect(order.note(third, holding: [first, second]) == nil)
        #expect(order.note(third, holding: []) == nil)
      }
      #expect(
        order.nestings == [
          .init(held: first, taken: second), .init(held: first, taken: third),
          .init(held: second, taken: third),
        ])
    }

    @Test("two locks in both orders are told of, by name, and the second order is not believed")
    func circle() throws {
      #expect(order.note(second, holding: [first]) == nil)
      let problem = try #require(order.note(first, holding: [second]))
      #expect(
        problem.contains("House/First.swift:1 is taken while House/Second.swift:2 is held"))
      #expect(order.nestings == [.init(held: first, taken: second)])
    }

    @Test("a circle of three is told of, with the way around it")
    func longCircle() throws {
      #expect(order.note(second, holding: [first]) == nil)
      #expect(order.note(third, holding: [second]) == nil)
      let problem = try #require(order.note(first, holding: [third]))
      #expect(
        problem.hasSuffix(
          "House/Third.swift:3 -> House/First.swift:1 -> House/Second.swift:2 -> House/Third.swift:3"
        ))
    }

    @Test(
      "a lock within one of its own class is told of: another place would have them the other way round"
    )
    func sameClass() {
      #expect(order.note(first, holding: [first]) != nil)
      #expect(order.nestings.isEmpty)
    }

    @Test(
      "a lock is of the class of the line that makes it, and what is taken within another is noted")
    func noted() throws {
      let line: UInt = #line
      let outer = Locked(0)
      let inner = Monitor(0)
      outer.withLock { _ in inner.withLock { _ in } }
      let nesting = LockOrder.Nesting(
        held: LockClass(line: line + 1), taken: LockClass(line: line + 2))
      #expect(LockOrder.process.nestings.contains(nesting))
    }
  }
#endif
