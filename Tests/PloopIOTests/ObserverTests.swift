import PloopIO
import TestSupport
import Testing

@Suite("Who is told")
struct ObserverTests {
  /// On a stack as most threads of the service have it.
  private func onThread(_ body: @escaping @Sendable () -> Void) throws {
    let hasEnded = Monitor(false)
    try Thread(name: "test") {
      body()
      hasEnded.update { $0 = true }
    }.detach()
    let isOver: Bool? = hasEnded.wait(until: .after(seconds: 300)) { $0 ? true : nil }
    #expect(isOver == true)
  }

  @Test("is told as often as there is something to tell, with the same little of a stack")
  func often() throws {
    let (observer, told) = (Observer<Int>(), Locked(0))
    observer.set { number in told.withLock { $0 += number } }
    try onThread { for _ in 0..<200_000 { observer.tell(1) } }
    #expect(told.withLock { $0 } == 200_000)
    observer.set(nil)
    observer.tell(1)
    #expect(told.withLock { $0 } == 200_000)
  }

  @Test("of each change of a file")
  func changes() throws {
    let folder = try TemporaryFolder()
    let file = try ImageFolder(path: folder.path).create("image", mode: 0o600)
    let told = Locked<UInt64>(0)
    file.watchChanges { range in told.withLock { $0 += UInt64(range.count) } }
    try onThread { for _ in 0..<200_000 { file.noteChange(offset: 0, length: 2) } }
    file.watchChanges(nil)
    #expect(told.withLock { $0 } == 400_000)
  }
}
