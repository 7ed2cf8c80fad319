import Glibc
import PloopIO
import Testing

@testable import PloopDevice

@Suite("Cluster locks")
struct ClusterLocksTests {
  @Test("a locked cluster is refused, another one is not, and an unlocked one can be had again")
  func tries() {
    let locks = ClusterLocks()
    #expect(locks.tryLock(7))
    #expect(!locks.tryLock(7))
    #expect(locks.tryLock(8))
    locks.unlock(7)
    #expect(locks.tryLock(7))
  }

  @Test("many threads that want few clusters hold each one at a time, and all get their turn")
  func excludes() throws {
    let locks = ClusterLocks()
    let holders = (0..<3).map { _ in Locked(0) }
    let (turns, overlaps) = (Locked(0), Locked(0))
    let threads = try (0..<8).map { index in
      try Thread(name: "locker") {
        for round in 0..<300 {
          let cluster = (index + round) % 3
          locks.lock(UInt64(cluster))
          if holders[cluster].withLock({
            $0 += 1; return $0
          }) > 1 {
            overlaps.withLock { $0 += 1 }
          }
          if round % 16 == 0 { sched_yield() }
          holders[cluster].withLock { $0 -= 1 }
          locks.unlock(UInt64(cluster))
          turns.withLock { $0 += 1 }
        }
      }
    }
    threads.forEach { $0.join() }
    #expect(overlaps.withLock { $0 } == 0)
    #expect(turns.withLock { $0 } == 8 * 300)
  }
}
