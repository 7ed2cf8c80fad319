import PloopIO
import Testing

@testable import PloopDevice

@Suite("Who checks indexes")
struct CheckQueueTests {
  private final class Disk: Sendable {}

  /// Something that is under way until it is let go.
  private final class Held: Sendable {
    private struct State {
      var begun = 0
      var isOpen = false
    }
    private let state = Monitor(State())

    func run() {
      state.update { $0.begun += 1 }
      _ = state.wait(until: .after(seconds: 120)) { $0.isOpen ? true : nil }
    }

    func open() { state.update { $0.isOpen = true } }
    func awaitBegun(_ count: Int) -> Bool {
      state.wait(until: .after(seconds: 120)) { $0.begun == count ? true : nil } ?? false
    }
  }

  @Test("disks on a file system that does not answer keep no others waiting")
  func lines() {
    let (queue, held, done) = (CheckQueue(), Held(), Monitor<[String]>([]))
    defer { held.open() }
    let disks = (0..<4).map { _ in Disk() }
    for disk in disks[..<2] { queue.check(disk, on: [1]) { held.run() } }
    #expect(held.awaitBegun(2))
    queue.check(disks[2], on: [1]) { done.update { $0.append("same") } }
    queue.check(disks[3], on: [2]) { done.update { $0.append("other") } }
    #expect(done.wait(until: .after(seconds: 120)) { $0.isEmpty ? nil : $0 } == ["other"])
    #expect(queue.isAwaited(on: [1]))
    held.open()
    #expect(
      done.wait(until: .after(seconds: 120)) { $0.count == 2 ? $0 : nil } == ["other", "same"])
  }

  @Test("counts come behind all checks")
  func counts() {
    let (queue, held, done) = (CheckQueue(workerLimit: 1), Held(), Monitor<[String]>([]))
    defer { held.open() }
    let disks = (0..<3).map { _ in Disk() }
    queue.check(disks[0], on: [1]) { held.run() }
    #expect(held.awaitBegun(1))
    queue.count(disks[1], on: [1]) { done.update { $0.append("count") } }
    #expect(!queue.isAwaited(on: [1]))
    queue.check(disks[2], on: [1]) { done.update { $0.append("check") } }
    #expect(queue.isAwaited(on: [1]) && !queue.isAwaited(on: [2]))
    held.open()
    #expect(
      done.wait(until: .after(seconds: 120)) { $0.count == 2 ? $0 : nil } == ["check", "count"])
  }

  @Test("what is given up leaves the line, and others stay")
  func removed() {
    let (queue, held, done) = (CheckQueue(workerLimit: 1), Held(), Monitor<[String]>([]))
    defer { held.open() }
    let disks = (0..<3).map { _ in Disk() }
    queue.check(disks[0], on: [1]) { held.run() }
    #expect(held.awaitBegun(1))
    queue.check(disks[1], on: [1]) { done.update { $0.append("gone") } }
    queue.count(disks[1], on: [1]) { done.update { $0.append("gone") } }
    queue.check(disks[2], on: [1]) { done.update { $0.append("stays") } }
    queue.remove(disks[1])
    held.open()
    #expect(done.wait(until: .after(seconds: 120)) { $0.isEmpty ? nil : $0 } == ["stays"])
  }
}
