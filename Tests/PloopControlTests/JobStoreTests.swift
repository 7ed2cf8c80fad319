import Foundation
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Jobs that are kept")
struct JobStoreTests {
  private func job(_ id: String, _ state: JobState = .queued, finishedAt: Double? = nil)
    -> JobRecord
  {
    var record = JobRecord(
      id: id, type: "merge", device: "vm1", parameters: ["level": .number(0)], phases: ["copying"],
      priority: 50, after: [], limits: JobLimits(), labels: ["why": "night\"ly"],
      createdAt: wallClockSeconds())
    record.state = state
    record.finishedAt = finishedAt
    return record
  }

  @Test("come back as they were, filtered and in parts, and old ones go")
  func kept() throws {
    let folder = try TemporaryFolder()
    let store = try Store(path: folder.path)
    let now = wallClockSeconds()
    try store.write { transaction throws(ServiceError) in
      for number in 0..<5 { try transaction.save(job("a\(number)")) }
      try transaction.save(job("b1", .succeeded, finishedAt: now - 31 * 86_400))
      try transaction.save(job("b2", .failed, finishedAt: now - 29 * 86_400))
    }
    let (all, part, failed, labelled, other) = try store.read { transaction throws(ServiceError) in
      var filter = JobFilter()
      let all = try transaction.jobs(before: nil, limit: 100, filter)
      let part = try transaction.jobs(before: "a4", limit: 2, filter)
      filter.state = .failed
      let failed = try transaction.jobs(before: nil, limit: 100, filter)
      filter = JobFilter()
      filter.labels = ["why": "night\"ly"]
      let labelled = try transaction.jobs(before: nil, limit: 100, filter)
      filter.labels = ["why": "x' OR 1=1 --"]
      return (all, part, failed, labelled, try transaction.jobs(before: nil, limit: 9, filter))
    }
    #expect(all.map(\.id) == ["b2", "b1", "a4", "a3", "a2", "a1", "a0"])
    #expect(part.map(\.id) == ["a3", "a2"])
    #expect(failed.map(\.id) == ["b2"])
    #expect(labelled.count == 7 && other.isEmpty)
    #expect(all.last == job("a0").at(all.last?.createdAt))
    try store.write { transaction throws(ServiceError) in try transaction.removeOldJobs(keeping: [])
    }
    let left = try store.read { transaction throws(ServiceError) in
      (try transaction.job("b1"), try transaction.job("b2"), try transaction.openJobs().count)
    }
    #expect(left.0 == nil && left.1 != nil && left.2 == 5)
  }

  @Test("have logs that are numbered, given in parts, and go with them")
  func logs() throws {
    let folder = try TemporaryFolder()
    let store = try Store(path: folder.path)
    try store.write { transaction throws(ServiceError) in
      try transaction.save(job("a"))
      for number in 1...5 { try transaction.log("a", "info", "line \(number)") }
    }
    let lines = try store.read { transaction throws(ServiceError) in
      try transaction.log(of: "a", after: 2, limit: 2)
    }
    #expect(lines.map(\.number) == [3, 4])
    #expect(lines.map(\.message) == ["line 3", "line 4"])
    try store.write { transaction throws(ServiceError) in try transaction.removeJob("a") }
    let left = try store.read { transaction throws(ServiceError) in
      try transaction.log(of: "a", after: 0, limit: 10)
    }
    #expect(left.isEmpty)
  }

  @Test("limits that were written down before there were operations have none of them")
  func oldLimits() throws {
    let text = "{\"bytesPerSecond\":7}"
    let limits = try JSONDecoder().decode(JobLimits.self, from: Data(text.utf8))
    #expect(limits.bytesPerSecond == 7 && limits.operationsPerSecond == 0)
    let again = try JSONDecoder().decode(JobLimits.self, from: try JSONEncoder().encode(limits))
    #expect(again == limits)
  }
}

extension JobRecord {
  fileprivate func at(_ created: Double?) -> JobRecord {
    var job = self
    job.createdAt = created ?? 0
    return job
  }
}
