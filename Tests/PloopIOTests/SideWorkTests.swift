import PloopIO
import TestSupport
import Testing

@Suite("Work that somebody else may do")
struct SideWorkTests {
  private struct Failure: Error, Equatable {
    let number: Int
  }

  @Test("is done at the same time by an engine, once, and its result is the same for everybody")
  func once() throws {
    let engine = IOEngine(threadLimit: 4)
    let inside = Monitor(0)
    // Each waits until all are there, which one thread alone would never see.
    let works = (0..<4).map { _ in
      Helpers.engine(engine).begin { () throws(Failure) in
        inside.update { $0 += 1 }
        let together: Bool? = inside.wait(until: .after(seconds: 600)) { $0 == 4 ? true : nil }
        if together == nil { throw Failure(number: 0) }
      }
    }
    try SideWork.end(works)
    let runs = Locked(0)
    let work = Helpers.engine(engine).begin { () throws(Failure) -> Int in
      runs.withLock { runs in
        runs += 1
        return runs
      }
    }
    #expect(try (0..<3).map { _ throws(Failure) in try work.result() } == [1, 1, 1])
    engine.stop(until: .after(seconds: 600))
    #expect(runs.withLock { $0 } == 1)
  }

  @Test("is done by who wants its result while no thread of the engine is free")
  func busy() throws {
    let engine = IOEngine(threadLimit: 1)
    let isOver = Monitor(false)
    engine.submit { _ = isOver.wait { $0 ? true : nil } }
    let ran = Locked<[Int]>([])
    let works = (0..<3).map { number in
      Helpers.engine(engine).begin { () throws(Failure) in ran.withLock { $0.append(number) } }
    }
    try SideWork.end(works)
    #expect(ran.withLock { $0 } == [0, 1, 2])
    isOver.update { $0 = true }
    engine.stop(until: .after(seconds: 600))
    #expect(ran.withLock { $0 } == [0, 1, 2])
  }

  @Test(
    "has ended as a whole before the first failure of the list is told", arguments: [false, true])
  func failures(late: Bool) {
    let ran = Locked<[Int]>([])
    let works = (0..<4).map { number in
      Helpers.nobody { late }.begin { () throws(Failure) in
        ran.withLock { $0.append(number) }
        if number % 2 == 1 { throw Failure(number: number) }
      }
    }
    #expect(throws: Failure(number: 1)) { try SideWork.end(works) }
    #expect(ran.withLock { $0 } == [0, 1, 2, 3])
  }

  @Test("without helpers is done when it is handed out, or when its result is wanted")
  func alone() {
    for late in [false, true] {
      let order = Locked<[String]>([])
      let work = Helpers.nobody { late }.begin { order.withLock { $0.append("work") } }
      order.withLock { $0.append("caller") }
      work.end()
      work.result()
      #expect(order.withLock { $0 } == (late ? ["caller", "work"] : ["work", "caller"]))
    }
  }
}
