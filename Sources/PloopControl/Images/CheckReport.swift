package import PloopDevice
internal import PloopFormat

// What a check has found, as the result of a job and the output of `ploopd image check` have it.

extension ChainCheck {
  /// - Parameters:
  ///   - files: what the levels are called, oldest first.
  ///   - limit: faults that are named, of all levels together; all are counted.
  package func report(naming files: [String], limit: Int) -> [String: JobValue] {
    var room = limit
    let levels = zip(files, self.levels).enumerated().map { number, level -> JobValue in
      let faults = level.1.faults.prefix(max(0, room))
      room -= faults.count
      return .object(level.1.members(number: number, file: level.0, Array(faults)))
    }
    let mismatches = mismatch.map { mismatch in
      [
        JobValue.object([
          "code": .text(mismatch.error.code.rawValue), "level": .number(UInt64(mismatch.level)),
          "detail": .text(mismatch.error.detail),
        ])
      ]
    }
    var report: [String: JobValue] = [
      "verdict": .text("\(verdict)"), "levels": .list(levels), "errors": .list(mismatches ?? []),
    ]
    report["forced_repair"] = repairPlan.map { .object($0.members(naming: files, limit: limit)) }
    return report
  }
}

extension RepairPlan {
  fileprivate func members(naming files: [String], limit: Int) -> [String: JobValue] {
    var steps: [JobValue] = []
    var backups: [JobValue] = []
    var count = 0
    for (level, image) in images.enumerated() {
      guard let image, !image.steps.isEmpty else { continue }
      count += image.steps.count
      backups.append(.text(image.backupName(of: files[level])))
      if let lost = image.lostName(of: files[level]) { backups.append(.text(lost)) }
      steps += image.steps.prefix(max(0, limit - steps.count)).map { step in
        .object([
          "level": .number(UInt64(level)), "action": .text(step.action.rawValue),
          "cluster": .number(step.cluster), "entry": .number(UInt64(step.entry)),
          "detail": .text(step.words),
        ])
      }
    }
    return [
      "plan": .text(digest), "step_count": .number(UInt64(count)), "steps": .list(steps),
      "backups": .list(backups),
    ]
  }
}

extension ChainCheck.Level {
  fileprivate func members(
    number: Int, file: String, _ faults: [CheckFault]
  ) -> [String: JobValue] {
    var members: [String: JobValue] = [
      "level": .number(UInt64(number)), "file": .text(file), "verdict": .text("\(verdict)"),
      "errors": .list(faults.map { .object($0.members(level: number)) }),
      "error_count": .number(faultCount),
    ]
    guard case .image(let check) = self else { return members }
    members["in_use"] = .flag(!check.header.isClean)
    members["extension"] = .text(check.formatExtension.name)
    members["mapped_clusters"] = .number(check.mappedClusters)
    members["scattered_clusters"] = .number(check.scatteredClusters)
    members["fragmentation_percent"] = .number(check.fragmentationPercent)
    members["unreferenced_clusters"] = .number(check.unreferencedClusters)
    members["tail_bytes"] = .number(check.tailBytes)
    return members
  }
}

extension CheckFault {
  fileprivate func members(level: Int) -> [String: JobValue] {
    var members: [String: JobValue] = [
      "code": .text(code), "level": .number(UInt64(level)), "detail": .text(detail),
    ]
    members["cluster"] = cluster.map(JobValue.number)
    members["entry"] = entry.map { .number(UInt64($0)) }
    members["offset"] = offset.map(JobValue.number)
    return members
  }
}

extension ImageCheck.ExtensionState {
  package var name: String {
    switch self {
    case .none: "none"
    case .stale: "stale"
    case .good: "good"
    case .damaged: "damaged"
    }
  }
}
