internal import PloopDevice
internal import PloopIO

/// Makes a disk larger, while it is used: `size` says how large, in bytes.
///
/// What has been moved for it stays where it is, so it goes on where it was after any interruption.
struct ResizeJob: JobWork {
  static let type = "resize"
  static let phases = ["moving", "committing"]
  static let isResumable = true

  /// Clusters of one step: done before somebody is heard.
  private static let stepClusters = 16

  private let device: String
  private let size: UInt64

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {
    self.device = device
    var parameters = JobParameters(parameters)
    guard let size = try parameters.number("size") else {
      throw parameters.wrong("size", "is missing")
    }
    self.size = size
    try parameters.finish()
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    try ofTheSize { () throws(ServiceError) in
      let controller = try service.controller(device)
      try service.requireResizable(controller, to: size)
    }
    return ["size": .number(size)]
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    try ofTheSize { () throws(ServiceError) in
      try service.resizePlan(try service.controller(device), to: size)
    }
  }

  /// What is wrong with the size is said of the parameter.
  private func ofTheSize<T>(
    _ body: () throws(ServiceError) -> T
  ) throws(ServiceError) -> T {
    do throws(ServiceError) { return try body() } catch {
      var error = error
      if error.pointer == "/size" { error.pointer = "/params/size" }
      throw error
    }
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let controller = try failing { () throws(ServiceError) in try service.controller(device) }
    let (id, size) = (control.id, size)
    let begun = try control.untilThereIsRoom { () throws(ServiceError) in
      try controller.runAndWait { () throws(ServiceError) in
        try service.beginResize(controller, to: size, job: id)
      }
    }
    guard let begun else {
      control.log("the disk has \(size) bytes: an earlier attempt has made it so")
      return ["size": .number(size), "completed_earlier": .flag(true)]
    }
    let (copied, pause): (UInt64, UInt64)
    do throws(JobStop) {
      control.enter(phase: "moving")
      control.total(clusters: begun.resize.totalClusters, bytes: begun.resize.totalBytes)
      control.log("\(begun.resize.totalClusters) clusters to move")
      copied = try move(begun.resize, control, service)
      try control.commit()
      control.enter(phase: "committing")
      pause = try control.untilThereIsRoom { () throws(ServiceError) in
        try controller.runAndWait { () throws(ServiceError) in
          try service.finish(begun, controller)
        }
      }
    } catch {
      control.log("given up")
      _ = try? controller.runAndWait { () throws(ServiceError) in service.abandon(begun) }
      throw error
    }
    control.log("requests waited for \(pause / 1_000) us")
    return [
      "size": .number(size), "clusters_copied": .number(copied), "pause_ns": .number(pause),
    ]
  }

  /// Moves step by step, each durable, and has the longer index ready in the end.
  private func move(
    _ resize: Resize, _ control: JobControl, _ service: Service
  ) throws(JobStop) -> UInt64 {
    let clusterBytes = resize.totalClusters == 0 ? 0 : resize.totalBytes / resize.totalClusters
    var copied: UInt64 = 0
    while true {
      try control.checkpoint()
      let deadline = Deadline.after(seconds: service.configuration.quiesceSeconds)
      do throws(DeviceError) {
        guard let step = try resize.step(limit: ResizeJob.stepClusters, until: deadline) else {
          try resize.prepare(until: deadline)
          return copied
        }
        copied += step.copied
        control.advance(clusters: step.clusters, bytes: step.clusters * clusterBytes)
        control.persist()
      } catch {
        switch error.kind {
        case .outOfSpace: try waitForSpace(resize, control)
        case .detached: throw .interrupted
        default: throw .failed(ServiceError(error))
        }
      }
    }
  }

  private func waitForSpace(_ resize: Resize, _ control: JobControl) throws(JobStop) {
    let wanted = resize.batchBytes
    let blocker = JobBlocker(
      kind: .space, id: nil,
      detail: "\(resize.path): its file system is full; \(wanted) free bytes are wanted")
    try control.wait(for: blocker) { resize.space.map { $0.freeBytes >= wanted } ?? true }
  }
}
