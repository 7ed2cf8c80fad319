import PloopIO
import TestSupport
import Testing

@testable import PloopControl

/// A job that never begins here, and that goes on without its disk.
private struct PartingJob: JobWork {
  static let type = "parting"
  static let phases = ["working"]
  static let isResumable = false
  static let endsWithoutDisk = true

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {}

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] { [:] }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    JobPlan(clusters: 1, bytes: 1, requiredBytes: 0)
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] { [:] }
}

@Suite("The limits of the service")
struct LimitTests {
  private func fixture(devices: Int, jobs: Int) async throws -> ServiceFixture {
    var configuration = Service.Configuration()
    configuration.limits.maxDevices = devices
    configuration.limits.maxJobs = jobs
    let fixture = try ServiceFixture(
      registry: JobRegistry([PartingJob.self]), configuration: configuration)
    var change = QueueChange()
    change.isPaused = true
    _ = try await fixture.service.changeQueue(change)
    return fixture
  }

  @Test("of devices: one more is refused, until one of them is gone")
  func devices() async throws {
    let fixture = try await fixture(devices: 1, jobs: 1)
    try await fixture.create("one")
    let code = try await fixture.code { _ = try await $0.attach(Self.request("two"), keeping: nil) }
    #expect(code == "too-many-devices")
    try await fixture.service.detach("one", mode: .safe, ifRevision: nil)
    try await fixture.create("two")
  }

  private static func request(_ id: String) -> AttachRequest {
    AttachRequest(
      id: id, source: .create(AttachRequest.CreateRequest(directory: id, sizeBytes: 1 << 20)))
  }

  @Test("of jobs that are not over")
  func jobs() async throws {
    let fixture = try await fixture(devices: 1, jobs: 1)
    try await fixture.create("vm")
    let request = JobRequest(type: "parting", device: "vm")
    let first = try await fixture.service.addJob(request, keeping: nil)
    let code = try await fixture.code { _ = try await $0.addJob(request, keeping: nil) }
    #expect(code == "too-many-jobs")
    _ = try await fixture.service.cancelJob(first.record.id, ifRevision: nil)
    _ = try await fixture.service.addJob(request, keeping: nil)
  }

  @Test("of cancelling: a job that has handed its disk over goes on")
  func cancelling() async throws {
    let fixture = try await fixture(devices: 1, jobs: 1)
    try await fixture.create("vm")
    let service = try fixture.service
    let job = try await service.addJob(JobRequest(type: "parting", device: "vm"), keeping: nil)
    service.jobs.state.withLock { $0.jobs[job.record.id]?.isCommitted = true }
    let code = try await fixture.code {
      _ = try await $0.cancelJob(job.record.id, ifRevision: nil)
    }
    #expect(code == "job-uncancellable")
    #expect(try await service.job(job.record.id).record.state == .queued)
  }
}
