internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Looks at the whole chain of a `device` while guests use it, or at images that are named and that nobody
/// writes, without changing a byte. What is wrong is its result, and no failure.
struct CheckJob: QueuedWork {
  static let type = "check"
  static let phases = ["reading"]
  static let isResumable = false
  static let device = JobDevice.oneOrNone

  /// Faults that the result names; all are counted.
  static let faultsNamed = 1_000

  private enum Subject: Sendable {
    case device(String)
    case images(NamedImages)
  }

  private let subject: Subject

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> CheckJob {
    var parameters = JobParameters(parameters)
    let images = try NamedImages(&parameters)
    try parameters.finish()
    switch (device, images) {
    case (let device?, nil): return CheckJob(subject: .device(device))
    case (nil, let images?): return CheckJob(subject: .images(images))
    case (nil, nil):
      throw ServiceError(
        .invalidValue, "device: is missing, and no image is named", pointer: "/device")
    default: throw parameters.wrong("image", "either a device or images are expected")
    }
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    guard case .images(let images) = subject else { return [:] }
    _ = try service.open(images)
    return images.parameters
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let (run, _, locks) = try begin(service)
    defer { withExtendedLifetime(locks) {} }
    return JobPlan(clusters: 0, bytes: run.totalBytes, requiredBytes: 0)
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let (run, files, locks) = try failing { () throws(ServiceError) in try begin(service) }
    defer { withExtendedLifetime(locks) {} }
    control.enter(phase: CheckJob.phases[0])
    control.total(clusters: 0, bytes: run.totalBytes)
    while true {
      try control.checkpoint()
      let deadline = Deadline.after(seconds: service.configuration.quiesceSeconds)
      do throws(DeviceError) {
        guard let bytes = try run.step(until: deadline) else { break }
        control.advance(clusters: 0, bytes: bytes)
      } catch {
        if case .detached = error.kind { throw .interrupted }
        throw .failed(ServiceError(error))
      }
    }
    let found = try failing { () throws(ServiceError) in
      try converting { () throws(DeviceError) in try run.result() }
    }
    if found.verdict != .clean {
      let count = found.levels.reduce(found.mismatch == nil ? 0 : 1) { $0 &+ $1.faultCount }
      control.log("\(found.verdict): \(count) faults", level: "warning")
    }
    return found.report(naming: files, limit: CheckJob.faultsNamed)
  }

  private func begin(
    _ service: Service
  ) throws(ServiceError) -> (run: CheckRun, files: [String], locks: [DescriptorLock]) {
    switch subject {
    case .device(let id):
      let controller = try service.controller(id)
      let disk = try controller.device()
      let run = try converting { () throws(DeviceError) in try CheckRun(of: disk) }
      return (run, controller.now.record?.deltas.map(\.path) ?? [], [])
    case .images(let images):
      let open = try service.open(images)
      let run = try converting { () throws(DeviceError) in try CheckRun(of: open.sources) }
      return (run, open.paths, open.locks)
    }
  }
}
