internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Looks at the whole chain of a `device` while guests use it, or at images that are named and that nobody
/// writes, without changing a byte. What is wrong is its result, and no failure.
///
/// Images that nobody has can be repaired: `safe` is what an attach does, `force` is for entries that safe
/// repair does not touch, and wants the `plan` that a check has said.
struct CheckJob: QueuedWork {
  static let type = "check"
  static let phases = ["reading", "repairing"]
  static let isResumable = false
  static let device = JobDevice.oneOrNone

  /// Faults that the result names; all are counted.
  static let faultsNamed = 1_000

  private enum Subject: Sendable {
    case device(String)
    case images(NamedImages)
  }

  fileprivate enum Repair: Equatable, Sendable {
    case none, safe
    case force(plan: String)
  }

  private let subject: Subject
  private let repair: Repair

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> CheckJob {
    var parameters = JobParameters(parameters)
    let images = try NamedImages(&parameters)
    let repair = try Repair(&parameters)
    try parameters.finish()
    switch (device, images) {
    case (let device?, nil):
      guard repair == .none else {
        throw parameters.wrong("repair", "a disk that is attached is not repaired: detach it")
      }
      return CheckJob(subject: .device(device), repair: .none)
    case (nil, let images?):
      if repair != .none, case .descriptor(let reference) = images, reference.snapshot != nil {
        throw parameters.wrong("repair", "a chain is repaired to its top, not to a snapshot")
      }
      return CheckJob(subject: .images(images), repair: repair)
    case (nil, nil):
      throw ServiceError(
        .invalidValue, "device: is missing, and no image is named", pointer: "/device")
    default: throw parameters.wrong("image", "either a device or images are expected")
    }
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    guard case .images(let images) = subject else { return [:] }
    _ = try service.open(images)
    return images.parameters.merging(repair.parameters) { $1 }
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    // Nobody waits for a plan.
    let begun = try begin(service, until: .after(milliseconds: 0))
    defer { withExtendedLifetime(begun) {} }
    return JobPlan(clusters: 0, bytes: begun.run.totalBytes, requiredBytes: 0)
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    control.enter(phase: CheckJob.phases[0])
    var (found, files) = try look(control, service)
    var repairs: [String] = []
    if case .images(let images) = subject, isWanted(for: found) {
      try control.commit()
      control.enter(phase: CheckJob.phases[1])
      repairs = try failing { () throws(ServiceError) in try mend(images, found, service) }
      for line in repairs.prefix(CheckJob.faultsNamed) { control.log(line) }
      (found, files) = try look(control, service)
    }
    if found.verdict != .clean {
      let count = found.levels.reduce(found.mismatch == nil ? 0 : 1) { $0 &+ $1.faultCount }
      control.log("\(found.verdict): \(count) faults", level: "warning")
    }
    var report = found.report(naming: files, limit: CheckJob.faultsNamed)
    report["repairs"] = .list(repairs.prefix(CheckJob.faultsNamed).map(JobValue.text))
    return report
  }

  // MARK: Looking

  private struct Begun {
    let run: CheckRun
    let files: [String]
    var locks: [DescriptorLock] = []
  }

  private func begin(
    _ service: Service, until deadline: Deadline = .never
  ) throws(ServiceError) -> Begun {
    switch subject {
    case .device(let id):
      let controller = try service.controller(id)
      let disk = try controller.device()
      let run = try converting { () throws(DeviceError) in try CheckRun(of: disk, until: deadline) }
      return Begun(run: run, files: controller.now.record?.deltas.map(\.path) ?? [])
    case .images(let images):
      let open = try service.open(images)
      let run = try converting { () throws(DeviceError) in try CheckRun(of: open.sources) }
      return Begun(run: run, files: open.paths, locks: open.locks)
    }
  }

  /// The files, and with them the locks, are closed again when this returns.
  private func look(
    _ control: JobControl, _ service: Service
  ) throws(JobStop) -> (ChainCheck, files: [String]) {
    let begun = try failing { () throws(ServiceError) in try begin(service) }
    defer { withExtendedLifetime(begun) {} }
    control.total(clusters: 0, bytes: begun.run.totalBytes)
    while true {
      try control.checkpoint()
      let deadline = Deadline.after(seconds: service.configuration.quiesceSeconds)
      do throws(DeviceError) {
        guard let bytes = try begun.run.step(until: deadline) else {
          return (try begun.run.result(), begun.files)
        }
        control.advance(clusters: 0, bytes: bytes)
      } catch {
        if case .detached = error.kind { throw .interrupted }
        throw .failed(ServiceError(error))
      }
    }
  }

  // MARK: Repairing

  private func isWanted(for found: ChainCheck) -> Bool {
    switch repair {
    case .none: false
    case .safe: found.verdict == .repairable
    case .force: found.verdict != .clean
    }
  }

  private func mend(
    _ images: NamedImages, _ found: ChainCheck, _ service: Service
  ) throws(ServiceError) -> [String] {
    let open = try service.open(images, forRepair: true)
    defer { withExtendedLifetime(open) {} }
    return try converting { () throws(DeviceError) in
      if case .force(let plan) = repair, found.verdict == .corrupt {
        return try ForcedRepair.run(open.sources, plan: plan, holding: open.locks)
      }
      return try ImageRepair.run(open.sources, whereNeeded: found, holding: open.locks)
    }
  }
}

extension CheckJob.Repair {
  fileprivate init(_ parameters: inout JobParameters) throws(ServiceError) {
    let word = try parameters.text("repair") ?? "none"
    let plan = try parameters.text("plan")
    switch (word, plan) {
    case ("none", nil): self = .none
    case ("safe", nil): self = .safe
    case ("force", let plan?): self = .force(plan: plan)
    case ("force", nil):
      throw parameters.wrong("plan", "is missing: a check without repair says what would be done")
    case ("none", _), ("safe", _): throw parameters.wrong("plan", "goes with force")
    default: throw parameters.wrong("repair", "none, safe or force is expected")
    }
  }

  fileprivate var parameters: [String: JobValue] {
    switch self {
    case .none: [:]
    case .safe: ["repair": .text("safe")]
    case .force(let plan): ["repair": .text("force"), "plan": .text(plan)]
    }
  }
}
