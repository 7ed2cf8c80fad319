import Glibc
import PloopIO
import Testing

@Suite("The I/O engine", .serialized)
struct IOEngineTests {
  @Test("one thread runs work in the order in which it was submitted")
  func order() {
    let engine = IOEngine(threadLimit: 1)
    let ran = Locked<[Int]>([])
    for index in 0..<3000 { engine.submit { ran.withLock { $0.append(index) } } }
    engine.stop(until: .after(seconds: 20))
    #expect(ran.withLock { $0 } == Array(0..<3000))
  }

  @Test("those for whom it works take turns, and each has its own in order, however many wait")
  func turns() {
    let engine = IOEngine(threadLimit: 1)
    let ran = Locked<[(party: UInt64, index: Int)]>([])
    let isOpen = Monitor(false)
    engine.submit { _ = isOpen.wait { $0 ? true : nil } }
    func submit(_ count: Int, for party: UInt64) {
      for index in 0..<count {
        engine.submit(for: party) { ran.withLock { $0.append((party, index)) } }
      }
    }
    submit(3000, for: 1)
    submit(50, for: 2)
    submit(20, for: 0)
    isOpen.update { $0 = true }
    engine.stop(until: .after(seconds: 120))
    let order = ran.withLock { $0 }
    #expect(order.prefix(60).map(\.party) == (0..<20).flatMap { _ in [1, 2, 0] })
    #expect(order.dropFirst(60).prefix(60).map(\.party) == (0..<30).flatMap { _ in [1, 2] })
    for (party, count) in [(1, 3000), (2, 50), (0, 20)] as [(UInt64, Int)] {
      #expect(order.filter { $0.party == party }.map(\.index) == Array(0..<count))
    }
  }

  @Test("never more threads than the limit, and as many as there is waiting work")
  func limit() {
    let engine = IOEngine(threadLimit: 4)
    let state = Monitor((running: 0, most: 0, done: 0))
    for _ in 0..<12 {
      engine.submit {
        state.update { state in
          state.running += 1
          state.most = max(state.most, state.running)
        }
        // Four at once, or the deadline ends a test that then fails.
        _ = state.wait(until: .after(seconds: 10)) { $0.most == 4 ? true : nil }
        state.update { state in
          state.running -= 1
          state.done += 1
        }
      }
    }
    #expect(state.wait(until: .after(seconds: 20)) { $0.done == 12 ? true : nil } == true)
    #expect(state.withLock { $0.most } == 4)
    engine.stop(until: .after(seconds: 10))
  }

  @Test("stopping lets submitted work end, and then no thread of the engine is left")
  func stops() throws {
    let engine = IOEngine(threadLimit: 3)
    let ran = Locked<[String]>([])
    for _ in 0..<200 {
      engine.submit {
        let thread = IOEngineTests.currentThread()
        ran.withLock { $0.append(thread) }
      }
    }
    engine.stop(until: .after(seconds: 30))
    let threads = ran.withLock { $0 }
    #expect(threads.count == 200)
    #expect((1...3).contains(Set(threads).count))
    let deadline = Deadline.after(seconds: 10)
    while Set(threads).contains(where: { access("/proc/\($0)", F_OK) == 0 }) {
      try #require(!deadline.hasPassed, "threads are left")
      sched_yield()
    }
  }

  /// The running thread as `/proc` names it: process/task/number.
  private static func currentThread() -> String {
    var bytes = [UInt8](repeating: 0, count: 64)
    let count = readlink("/proc/thread-self", &bytes, bytes.count)
    return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
  }
}
