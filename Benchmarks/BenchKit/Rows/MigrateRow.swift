internal import PloopIO
internal import TestSupport

/// A disk that is moved while a guest writes it.
extension Suite {
  static let migrateRowIDs = ["migrate"]

  private static let guestBytesPerSecond = 50_000_000
  private static let allowedMilliseconds = 100

  private enum Moved: String, CaseIterable {
    case ploopd
    /// What a guest is promised.
    case allowed = "max_downtime_ms"
  }

  func migrateRows() throws {
    guard settings.base == nil, wants("migrate") else { return }
    try measure(
      "migrate", "writers wait when a disk is handed over to which 50 MB/s are written", unit: "ms",
      [
        Report.Goal(
          of: Moved.ploopd.rawValue, against: Moved.allowed.rawValue, ratio: 1, atMost: true)
      ], of: Moved.allCases, name: \.rawValue
    ) { moved, round in
      guard moved == .ploopd else {
        return Report.Sample(value: Double(Self.allowedMilliseconds))
      }
      return Report.Sample(value: try migrate(round))
    }
  }

  /// - Returns: milliseconds for which writers had to wait.
  private func migrate(_ round: Int) throws -> Double {
    let store = try servers.memory(sizeBytes: settings.diskBytes)
    let contender = try filled(.ploopd)
    try servers.settle()
    let guest = try ChildProcess(
      [
        "/usr/bin/fio", "--name=guest", "--thread", "--ioengine=nbd",
        "--uri=\(contender.address.uri)", "--rw=randwrite", "--bs=64k", "--iodepth=8",
        "--size=\(settings.spanBytes)", "--rate=\(Self.guestBytesPerSecond)", "--time_based",
        "--runtime=3600", "--randseed=\(round + 1)",
      ], output: "/dev/null", errors: "/dev/null")
    defer { guest.end() }
    try servers.awaitWrites(contender, bytes: Double(Self.guestBytesPerSecond))
    let job = try servers.beginJob(
      "{\"type\":\"migrate\",\"device\":\"\(contender.address.export)\",\"params\":{\"to\":{\"nbd\":\"\(store.address.uri)\"},\"max_downtime_ms\":\(Self.allowedMilliseconds)}}"
    )
    let result = try servers.awaitJob(job)
    guard guest.isRunning else { throw BenchFailure("the guest has ended before its disk moved") }
    guest.end()
    guard let downtime = result["downtime_ns"] as? Double, (result["rounds"] as? Int ?? 0) > 1
    else { throw BenchFailure("the job says nothing of what writers have waited") }
    try store.stop()
    // The guest's last requests wait at the disk, which is not ours any more, and keep its connection.
    try servers.takeBack(contender)
    try finishChain(contender)
    return downtime / 1e6
  }
}
