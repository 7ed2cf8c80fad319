import PloopIO
import Testing

@Suite("Threads that work off a list")
struct CrewTests {
  private struct Fault: Error, Equatable {
    let piece: Int
  }

  private let engine = IOEngine(threadLimit: 8, rings: false)

  @Test("do every piece once, and never more at a time than they may", arguments: [1, 3, 8])
  func all(width: Int) {
    let (active, most, done) = (Locked(0), Locked(0), Locked<[Int]>([]))
    Crew.work(off: Array(0..<200), width: width, on: engine) { (piece: Int) in
      let now = active.withLock { active in
        active += 1
        return active
      }
      most.withLock { $0 = max($0, now) }
      done.withLock { $0.append(piece) }
      active.withLock { $0 -= 1 }
    }
    #expect(done.withLock { $0.sorted() } == Array(0..<200))
    #expect(most.withLock { $0 } <= width)
    engine.stop(until: .after(seconds: 20))
  }

  @Test("begin nothing more after a failure, which is told when nobody works any more")
  func failure() {
    let (active, done) = (Locked(0), Locked<[Int]>([]))
    #expect(throws: Fault(piece: 5)) {
      try Crew.work(off: Array(0..<200), width: 4, on: engine) { (piece: Int) throws(Fault) in
        active.withLock { $0 += 1 }
        defer { active.withLock { $0 -= 1 } }
        if piece == 5 { throw Fault(piece: piece) }
        done.withLock { $0.append(piece) }
      }
    }
    #expect(active.withLock { $0 } == 0)
    // Only pieces that had been taken before were done; with one thread those before it.
    #expect(!done.withLock { $0.contains(5) })
    done.withLock { $0 = [] }
    #expect(throws: Fault(piece: 5)) {
      try Crew.work(off: Array(0..<200), width: 1, on: engine) { (piece: Int) throws(Fault) in
        if piece == 5 { throw Fault(piece: piece) }
        done.withLock { $0.append(piece) }
      }
    }
    #expect(done.withLock { $0 } == Array(0..<5))
    engine.stop(until: .after(seconds: 20))
  }

  @Test("have their helpers take turns with whatever else waits for a thread")
  func turns() {
    let engine = IOEngine(threadLimit: 1, rings: false)
    let (gate, inside) = (Monitor(false), Monitor(0))
    let (done, before) = (Locked(0), Locked<Int?>(nil))
    engine.submit { _ = gate.wait { $0 ? true : nil } }
    for _ in 0..<50 { engine.submit { done.withLock { $0 += 1 } } }
    // The only thread waits, so the first piece is the caller's, and the second one its helper's.
    Crew.work(off: [0, 1], width: 2, on: engine) { (piece: Int) in
      if piece == 1 {
        let count = done.withLock { $0 }
        before.withLock { $0 = count }
      }
      inside.update { $0 += 1 }
      gate.update { $0 = true }
      _ = inside.wait { $0 == 2 ? true : nil }
    }
    let count = before.withLock { $0 }
    #expect(count.map { $0 <= 1 } == true, "\(count ?? -1) of 50 came before")
    engine.stop(until: .after(seconds: 120))
  }

  @Test("have nothing to do where there is nothing")
  func empty() {
    Crew.work(off: [Int](), width: 4, on: engine) { (_: Int) in Issue.record("there is no piece") }
    engine.stop(until: .after(seconds: 20))
  }
}
