import Glibc
import PloopIO
import Testing

@Suite("Locks and deadlines")
struct LockTests {
  @Test("many threads that count under a lock miss nothing, and an error gives the lock back")
  func counts() throws {
    struct Thrown: Error {}
    let count = Locked(0)
    let threads = try (0..<8).map { _ in
      try Thread(name: "counter") { for _ in 0..<5000 { count.withLock { $0 += 1 } } }
    }
    threads.forEach { $0.join() }
    #expect(throws: Thrown.self) { try count.withLock { _ throws(Thrown) in throw Thrown() } }
    #expect(count.withLock { $0 } == 40_000)
  }

  @Test("waiters are woken by an update, each sees its turn, and none is lost")
  func wakes() throws {
    let turn = Monitor(0)
    let threads = try (0..<6).map { index in
      try Thread(name: "turn") {
        for round in 0..<50 {
          let mine = round * 6 + index
          _ = turn.wait { $0 == mine ? true : nil }
          turn.update { $0 += 1 }
        }
      }
    }
    threads.forEach { $0.join() }
    #expect(turn.withLock { $0 } == 300)
  }

  @Test("a wait ends at its deadline, not before, and looks once more then")
  func deadline() {
    let monitor = Monitor(false)
    let start = monotonicNanoseconds()
    let answer: Bool? = monitor.wait(until: .after(milliseconds: 30)) { $0 ? true : nil }
    #expect(answer == nil)
    #expect(monotonicNanoseconds() - start >= 29_000_000)
    let past = Deadline.after(milliseconds: 0)
    #expect(past.hasPassed)
    #expect(monitor.wait(until: past) { _ in 7 } == 7)
  }

  @Test("a deadline carries over whole seconds, and never is never")
  func arithmetic() {
    #expect((59_000...60_000).contains(Deadline.after(seconds: 60).millisecondsLeft))
    #expect((1900...1999).contains(Deadline.after(milliseconds: 1999).millisecondsLeft))
    #expect(Deadline.never.millisecondsLeft == .max)
    // Nothing is left only once it has passed: who waits in milliseconds does not ask over and over for the last one.
    let start = monotonicNanoseconds()
    let soon = Deadline.after(microseconds: 2_500)
    while soon.millisecondsLeft > 0 {}
    #expect(monotonicNanoseconds() - start >= 2_500_000)
    #expect(soon.hasPassed)
    #expect(!Deadline.never.hasPassed)
  }
}
