import Glibc
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("The gate")
struct GateTests {
  @Test("a closed gate admits nobody, and those who wait enter when it opens")
  func closes() throws {
    let gate = Gate()
    #expect(gate.close(until: .after(seconds: 10)))
    #expect(gate.enterNow() == nil)
    let entered = Monitor(false)
    let thread = try Thread(name: "waiter") {
      guard let pass = gate.enter() else { return }
      entered.update { $0 = true }
      gate.leave(pass)
    }
    #expect(!entered.withLock { $0 })
    gate.open()
    #expect(entered.wait(until: .after(seconds: 10)) { $0 ? true : nil } == true)
    thread.join()
    #expect(gate.occupancy == 0)
  }

  @Test("closing waits for those inside, and gives up at its deadline with the gate open again")
  func drains() throws {
    let gate = Gate()
    let pass = try #require(gate.enter())
    #expect(gate.occupancy == 1)
    #expect(!gate.close(until: .after(milliseconds: 20)))
    #expect(!gate.isClosed)
    let other = try #require(gate.enterNow())
    gate.leave(other)
    let closed = Monitor<Bool?>(nil)
    let thread = try Thread(name: "closer") {
      let result = gate.close(until: .after(seconds: 10))
      closed.update { $0 = result }
    }
    while !gate.isClosed { sched_yield() }
    #expect(closed.withLock { $0 } == nil)
    gate.leave(pass)
    #expect(closed.wait(until: .after(seconds: 10)) { $0 } == true)
    thread.join()
  }

  @Test("closed gently, it opens for others again while somebody inside is slow")
  func closesGently() throws {
    let gate = Gate()
    let slow = try #require(gate.enter())
    #expect(gate.closeGently(until: .after(milliseconds: 20)) { _ in } == nil)
    #expect(!gate.isClosed)
    let attempts = Monitor(0)
    let closed = Monitor<UInt64?>(nil)
    let thread = try Thread(name: "closer") {
      let since = gate.closeGently(until: .after(seconds: 600)) { _ in attempts.update { $0 += 1 } }
      closed.update { $0 = since }
    }
    // Others come and go while the closer waits for the slow one, and every attempt ends before the next.
    #expect(attempts.wait(until: .after(seconds: 600)) { $0 > 0 ? true : nil } == true)
    for _ in 0..<100 {
      let other = try #require(gate.enter())
      gate.leave(other)
    }
    #expect(closed.withLock { $0 } == nil)
    #expect(attempts.withLock { $0 } == 1)
    let before = monotonicNanoseconds()
    gate.leave(slow)
    let since = try #require(closed.wait(until: .after(seconds: 600)) { $0 })
    thread.join()
    #expect(since >= before)
    #expect(gate.enterNow() == nil)
    gate.open()
  }

  @Test("closed gently, it stays closed behind half of the deadline until all have left")
  func closesForLong() throws {
    let gate = Gate()
    let slow = try #require(gate.enter())
    let deadline = Deadline.after(seconds: 10)
    let half = deadline.half
    let attempts = Locked(0)
    // Slower than every attempt before: it leaves only when the gate is closed then.
    let thread = try Thread(name: "slow") {
      let _: Void? = Monitor(()).wait(until: half) { _ in nil }
      while !gate.isClosed { sched_yield() }
      gate.leave(slow)
    }
    let since = gate.closeGently(until: deadline) { _ in attempts.withLock { $0 += 1 } }
    #expect(since != nil)
    #expect(attempts.withLock { $0 } > 0)
    #expect(gate.occupancy == 0)
    gate.open()
    thread.join()
  }

  @Test("a gate that is shut for good turns waiters away")
  func shuts() throws {
    let gate = Gate()
    #expect(gate.close(until: .after(seconds: 10)))
    let turnedAway = Monitor(false)
    let thread = try Thread(name: "waiter") {
      let pass = gate.enter()
      turnedAway.update { $0 = pass == nil }
    }
    gate.shutForGood()
    #expect(turnedAway.wait(until: .after(seconds: 10)) { $0 ? true : nil } == true)
    thread.join()
    gate.open()
    #expect(gate.enter() == nil)
  }

  @Test("keeps work while it is closed, and calls it when it opens or is shut for good")
  func keeps() {
    let gate = Gate()
    let calls = Locked<[Int]>([])
    #expect(!gate.keep { calls.withLock { $0.append(0) } })
    #expect(gate.close(until: .after(seconds: 10)))
    for number in 1...2 { #expect(gate.keep { calls.withLock { $0.append(number) } }) }
    #expect(calls.withLock { $0 }.isEmpty)
    gate.open()
    #expect(calls.withLock { $0 } == [1, 2])
    #expect(gate.close(until: .after(seconds: 10)))
    #expect(gate.keep { calls.withLock { $0.append(3) } })
    gate.shutForGood()
    #expect(calls.withLock { $0 } == [1, 2, 3])
    #expect(!gate.keep { calls.withLock { $0.append(4) } })
    gate.open()
    #expect(calls.withLock { $0 } == [1, 2, 3])
  }

  @Test("who was inside at some generation has left once three turns were counted")
  func generations() throws {
    let gate = Gate()
    let old = try #require(gate.enter())
    let start = gate.generation
    for _ in 0..<10 { gate.turn() }
    // Requests that come later do not stand for those that were inside before.
    let new = try #require(gate.enter())
    #expect(gate.generation < start + Gate.grace)
    gate.leave(old)
    for _ in 0..<10 { gate.turn() }
    #expect(gate.generation < start + 2 * Gate.grace)
    gate.leave(new)
    for _ in 0..<10 { gate.turn() }
    #expect(gate.generation >= start + Gate.grace)
  }

  @Test("no grace period ends while a request from before it is inside, on many threads")
  func graceUnderLoad() throws {
    let gate = Gate()
    // What a map entry is to a request: the object it may use until it leaves.
    let current = Locked(0)
    let freed = Locked<Set<Int>>([])
    let stop = Locked(false)
    let wrong = Locked(0)
    let users = try (0..<4).map { _ in
      try Thread(name: "user") {
        while !stop.withLock({ $0 }) {
          guard let pass = gate.enter() else { return }
          let object = current.withLock { $0 }
          for _ in 0..<4 { sched_yield() }
          if freed.withLock({ $0.contains(object) }) { wrong.withLock { $0 += 1 } }
          gate.leave(pass)
        }
      }
    }
    // The old top's allocator and the new one's may both turn it.
    let other = try Thread(name: "turner") {
      while !stop.withLock({ $0 }) { gate.turn() }
    }
    var waiting: [(object: Int, generation: UInt64)] = []
    for object in 1...2000 {
      let old = current.withLock { current -> Int in
        defer { current = object }
        return current
      }
      waiting.append((old, gate.generation))
      gate.turn()
      let generation = gate.generation
      for entry in waiting where entry.generation + Gate.grace <= generation {
        freed.withLock { _ = $0.insert(entry.object) }
      }
      waiting.removeAll { $0.generation + Gate.grace <= generation }
    }
    stop.withLock { $0 = true }
    users.forEach { $0.join() }
    other.join()
    #expect(wrong.withLock { $0 } == 0)
    #expect(gate.occupancy == 0)
  }

  @Test("waiting for those inside stops nobody, is over when they have left, and gives up in time")
  func awaitsLeavers() throws {
    let gate = Gate()
    #expect(gate.awaitLeavers(until: .after(seconds: 10)))
    let early = try #require(gate.enterNow())
    #expect(!gate.awaitLeavers(until: .after(milliseconds: 20)))
    let over = Monitor<Bool?>(nil)
    let thread = try Thread(name: "awaits") {
      let result = gate.awaitLeavers(until: .after(seconds: 60))
      over.update { $0 = result }
    }
    // Whoever comes meanwhile comes in, and is not waited for.
    var late: [Gate.Pass] = []
    for _ in 0..<100 {
      gate.leave(try #require(gate.enterNow()))
      late.append(try #require(gate.enterNow()))
    }
    #expect(over.withLock { $0 } == nil)
    gate.leave(early)
    late.forEach(gate.leave)
    #expect(over.wait(until: .after(seconds: 60)) { $0 } == true)
    thread.join()
    #expect(gate.occupancy == 0)
  }
}
