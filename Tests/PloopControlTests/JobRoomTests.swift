import PloopIO
import Testing

@testable import PloopControl

@Suite("Jobs that find no room")
struct JobRoomTests {
  private let notes = Locked<[String]>([])
  private let control: JobControl

  init() {
    let record = JobRecord(
      id: "j", type: "merge", device: "vm", parameters: [:], phases: [], priority: 50, after: [],
      limits: JobLimits(), labels: [:], createdAt: 0)
    control = JobControl(record, queue: Locked(JobThrottle(JobLimits(), now: 0))) { [notes] note in
      notes.withLock { notes in
        switch note {
        case .committed(let isCommitted): notes.append("committed \(isCommitted)")
        case .log(_, let message): notes.append(message)
        default: break
        }
      }
    }
  }

  private static let full = ServiceError(.insufficientSpace, "it is full", errno: "ENOSPC")

  @Test("it is tried again until there is room, and said once")
  func again() throws {
    var calls = 0
    let result = try control.untilThereIsRoom { () throws(ServiceError) in
      calls += 1
      guard calls > 1 else { throw Self.full }
      guard calls > 2 else {
        #expect(control.now.blockers.map(\.kind) == [.space])
        throw Self.full
      }
      return calls
    }
    #expect(result == 3)
    #expect(notes.withLock { $0 } == ["waits: it is full"])
    #expect(control.now.blockers.isEmpty)
  }

  @Test("behind its commit point it can be cancelled while it waits, and not while it tries")
  func committed() throws {
    try control.commit()
    var calls = 0
    var stop: JobStop?
    do throws(JobStop) {
      try control.untilThereIsRoom { () throws(ServiceError) in
        calls += 1
        #expect(control.now.isCommitted)
        if calls == 2 { #expect(!control.cancel()) }
        guard calls < 4 else { throw ServiceError(.ioError, "it was not heard") }
        throw Self.full
      }
    } catch { stop = error }
    guard case .cancelled? = stop else {
      Issue.record("it ends with \(String(describing: stop))")
      return
    }
    #expect(calls == 2)
    #expect(
      notes.withLock { $0.filter { $0.hasPrefix("committed") } } == [
        "committed true", "committed false", "committed true", "committed false",
      ])
  }

  @Test("any other failure is one")
  func failure() throws {
    var stop: JobStop?
    do throws(JobStop) {
      try control.untilThereIsRoom { () throws(ServiceError) in
        throw ServiceError(.imageFull, "no entry names what comes next")
      }
    } catch { stop = error }
    guard case .failed(let error)? = stop else {
      Issue.record("it ends with \(String(describing: stop))")
      return
    }
    #expect(error.code == .imageFull)
  }

  @Test("little is free below a twentieth of the file system, or below 64 clusters")
  func shortage() {
    func shortage(_ free: UInt64, of total: UInt64) -> Shortage? {
      Shortage(
        of: FilesystemSpace(freeBytes: free, totalBytes: total), clusterBytes: 1 << 16)
    }
    #expect(shortage(65_535, of: 1 << 30) == .full)
    #expect(shortage(65_536, of: 1 << 20) == .low)
    #expect(shortage(64 << 16, of: 1 << 20) == nil)
    #expect(shortage(63 << 16, of: 1 << 20) == .low)
    #expect(shortage(1 << 30, of: 20 << 30) == nil)
    #expect(shortage(1 << 30 - 1, of: 20 << 30) == .low)
  }
}
