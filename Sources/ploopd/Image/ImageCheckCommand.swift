internal import ArgumentParser
internal import PloopDevice
internal import PloopFormat
internal import PloopHTTP

struct ImageCheckCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check",
    abstract: "Check an image or a chain; nothing is changed without --repair.",
    discussion: """
      Exit status: 0 clean, 1 cannot be checked, 2 corrupt, 3 safe repair mends all that is wrong.
      """)

  @OptionGroup var chain: ChainArguments
  @Flag(help: "Mend what can be mended without touching any content.")
  var repair = false
  @Flag(help: "For machines.") var json = false

  func run() throws {
    let (found, repairs) = try reporting(on: chain.all) { () throws(DeviceError) in
      let found = try look()
      guard repair, found.verdict == .repairable else { return (found, [String]()) }
      let repairs = try mend(found)
      return (try look(), repairs)
    }
    if json {
      printJSON(self.json(found, repairs))
    } else {
      repairs.forEach { print("repaired: \($0)") }
      for (file, level) in zip(chain.all, found.levels) {
        lines(level).forEach { print("\(file): \($0)") }
      }
      if let mismatch = found.mismatch {
        print("\(chain.all[mismatch.level]): \(mismatch.error)")
      }
    }
    switch found.verdict {
    case .clean: break
    case .corrupt: throw ExitCode(2)
    case .repairable: throw ExitCode(3)
    }
  }

  /// The files, and with them the locks, are closed again when this returns.
  private func look() throws(DeviceError) -> ChainCheck {
    let found = try ChainCheck(chain.sources())
    for (number, level) in found.levels.enumerated() {
      guard case .unusable(let error) = level, error.code == .signatureUnknown else { continue }
      throw DeviceError(error, level: number, path: chain.all[number])
    }
    return found
  }

  private func mend(_ found: ChainCheck) throws(DeviceError) -> [String] {
    var repairs: [String] = []
    for (file, level) in zip(chain.all, found.levels) where level.verdict == .repairable {
      repairs += try ImageRepair.run(ImagePath(file).source(writable: true))
    }
    return repairs
  }

  // MARK: For people

  private func lines(_ level: ChainCheck.Level) -> [String] {
    switch level {
    case .raw: return ["raw, nothing to check"]
    case .unusable(let error): return ["\(error)"]
    case .image(let check):
      var lines = check.faults.map(sentence)
      if check.isUnclean { lines.append("image-unclean: whoever wrote it last did not close it") }
      if case .damaged(let fault) = check.formatExtension {
        lines.append("extension-damaged: \(fault.detail)")
      }
      if check.tailBytes > 0 {
        lines.append("tail: \(check.tailBytes) bytes at the end that nothing references")
      }
      lines.append(
        "\(check.verdict), \(check.mappedClusters) of \(check.geometry.clusterCount) clusters "
          + "mapped, \(check.unreferencedClusters) free inside the file")
      return lines
    }
  }

  private func sentence(_ fault: IndexFault) -> String {
    let what = fault.kind == .beyondDisk ? "slot" : "cluster"
    return "\(fault.kind.rawValue): \(what) \(fault.cluster) has entry \(fault.entry), "
      + "at byte \(fault.offset)"
  }

  // MARK: For machines

  private func json(_ found: ChainCheck, _ repairs: [String]) -> JSON {
    .members([
      "verdict": .string("\(found.verdict)"),
      "levels": .array(
        found.levels.enumerated().map { number, level in
          .members([
            "level": .integer(Int64(number)), "file": .string(chain.all[number]),
            "verdict": .string("\(level.verdict)"), "errors": .array(errors(level)),
            "in_use": level.check.map { .bool($0.isUnclean) },
            "extension": level.check.map { .string($0.formatExtension.name) },
            "mapped_clusters": level.check.map { .count($0.mappedClusters) },
            "unreferenced_clusters": level.check.map { .count($0.unreferencedClusters) },
            "tail_bytes": level.check.map { .count($0.tailBytes) },
          ])
        }),
      "errors": .array(
        (found.mismatch.map { [$0] } ?? []).map { mismatch in
          .members([
            "code": .string(mismatch.error.code.rawValue), "level": .integer(Int64(mismatch.level)),
            "detail": .string(mismatch.error.detail),
          ])
        }),
      "repairs": .array(repairs.map { .string($0) }),
    ])
  }

  private func errors(_ level: ChainCheck.Level) -> [JSON] {
    switch level {
    case .raw: []
    case .unusable(let error):
      [.members(["code": .string(error.code.rawValue), "detail": .string(error.detail)])]
    case .image(let check):
      check.faults.map { fault in
        .members([
          "code": .string(fault.kind.rawValue), "detail": .string(sentence(fault)),
          "cluster": .count(fault.cluster), "entry": .integer(Int64(fault.entry)),
          "offset": .count(fault.offset),
        ])
      }
    }
  }
}

extension ChainCheck.Level {
  fileprivate var check: ImageCheck? {
    if case .image(let check) = self { check } else { nil }
  }
}
