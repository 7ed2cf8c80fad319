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

  @OptionGroup var arguments: ChainArguments
  @Flag(help: "Mend what can be mended without touching any content.")
  var repair = false
  @Flag(help: "With --repair: mend entries that are guesses, too; without --plan only say how.")
  var force = false
  @Option(help: "With --force: the plan that was seen, and that is to be carried out.")
  var plan: String?
  @Flag(help: "For machines.") var json = false

  func validate() throws {
    guard repair || !force else { throw ValidationError("--force goes with --repair.") }
    guard force || plan == nil else { throw ValidationError("--plan goes with --force.") }
  }

  func run() throws {
    let chain = try arguments.chain()
    let (found, repairs) = try reporting(on: chain.files) { () throws(DeviceError) in
      let found = try look(at: chain)
      guard let repairs = try mend(chain, found) else { return (found, [String]()) }
      return (try look(at: chain), repairs)
    }
    if json {
      var report = found.report(naming: chain.files, limit: .max)
      report["repairs"] = .list(repairs.map(JobValue.text))
      printJSON(JobValue.object(report).json)
    } else {
      show(chain, found, repairs)
    }
    switch found.verdict {
    case .clean: break
    case .corrupt: throw ExitCode(2)
    case .repairable: throw ExitCode(3)
    }
  }

  /// The files, and with them the locks, are closed again when this returns.
  private func look(at chain: NamedChain) throws(DeviceError) -> ChainCheck {
    let found = try ChainCheck(chain.sources())
    for (number, level) in found.levels.enumerated() {
      guard case .unusable(let error) = level, error.code == .signatureUnknown else { continue }
      throw DeviceError(error, level: number, path: chain.files[number])
    }
    return found
  }

  /// - Returns: what was done, in words; nil where nothing was tried.
  private func mend(
    _ chain: NamedChain, _ found: ChainCheck
  ) throws(DeviceError) -> [String]? {
    if let plan, found.verdict == .corrupt {
      return try ForcedRepair.run(chain.sources(writable: true), plan: plan)
    }
    guard repair, found.verdict == .repairable else { return nil }
    return try ImageRepair.run(chain.sources(writable: true), whereNeeded: found)
  }

  // MARK: For people

  private func show(_ chain: NamedChain, _ found: ChainCheck, _ repairs: [String]) {
    repairs.forEach { print("repaired: \($0)") }
    for (file, level) in zip(chain.files, found.levels) {
      lines(level).forEach { print("\(file): \($0)") }
    }
    if let mismatch = found.mismatch {
      print("\(chain.files[mismatch.level]): \(mismatch.error)")
    }
    guard force, let plan = found.repairPlan else { return }
    for (file, image) in zip(chain.files, plan.images) {
      guard let image, !image.steps.isEmpty else { continue }
      print("\(file): would keep header and index as \(image.backupName(of: file)), then")
      if let lost = image.lostName(of: file) {
        print("\(file): would keep what no entry leads to as \(lost)")
      }
      image.steps.forEach { print("\(file): would \($0.action.rawValue): \($0.words)") }
    }
    print("to do so: ploopd image check --repair --force --plan \(plan.digest) …")
  }

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
