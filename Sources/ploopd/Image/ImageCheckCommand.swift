internal import ArgumentParser
internal import PloopControl
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
      var report = found.report(naming: chain.all, limit: .max)
      report["repairs"] = .list(repairs.map(JobValue.text))
      printJSON(JobValue.object(report).json)
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
    var lines = level.faults.map { "\($0.code): \($0.detail)" }
    let left = level.faultCount - UInt64(level.faults.count)
    if left > 0 { lines.append("and \(left) more") }
    switch level {
    case .raw: lines.append("raw, nothing to check")
    case .unusable: break
    case .image(let check):
      lines.append(
        "\(check.verdict), \(check.mappedClusters) of \(check.geometry.clusterCount) clusters "
          + "mapped, \(check.fragmentationPercent) % fragmented, "
          + "\(check.unreferencedClusters) free inside the file")
    }
    return lines
  }
}
