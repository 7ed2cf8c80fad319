internal import PloopIO
internal import TestSupport

/// Backups: how long they take, and what a guest notices.
///
/// They are left out of comparisons with another commit, which may not know them.
extension Suite {
  static let backupRowIDs = ["backup", "backup-guest", "increment"]

  func backupRows() throws {
    guard settings.base == nil else { return }
    if wants("backup") { try backupRow() }
    if wants("backup-guest") { try backupGuestRow() }
    if wants("increment") { try incrementRow() }
  }

  /// Who copies the same disk.
  private enum Copier: String, CaseIterable {
    case ploopd
    case daemon = "qemu-storage-daemon"
    case nbdcopy
    case qemuImage = "qemu-img convert"
  }

  /// A disk with the working set in it, all of it, to an export in memory.
  private func backupRow() throws {
    try measure(
      "backup", "full backup to an NBD server", unit: "MiB/s",
      [
        Report.Goal(against: Copier.daemon.rawValue, ratio: 3),
        Report.Goal(against: Copier.nbdcopy.rawValue, ratio: 1),
        Report.Goal(against: Copier.qemuImage.rawValue, ratio: 1),
      ], of: Copier.allCases, name: \.rawValue
    ) { copier, _ in
      let store = try servers.memory(sizeBytes: settings.diskBytes)
      let seconds = try seconds(of: copier, to: store)
      try verify(store)
      try store.stop()
      return Report.Sample(value: Double(settings.spanBytes >> 20) / seconds)
    }
  }

  private func seconds(of copier: Copier, to store: Contender) throws -> Double {
    if copier == .daemon {
      let disk = try filledImage()
      let daemon = try StorageDaemon(servers, disk)
      FreeMemory.warm(bytes: settings.spanBytes + settings.spanBytes / 4)
      let seconds = try daemon.backUp(to: store.address.socketPath)
      try finish(daemon.contender)
      return seconds
    }
    let contender = try filled(.ploopd)
    let target =
      try copier == .ploopd
      ? servers.addTarget(#""type":"nbd","uri":"\#(store.address.uri)""#) : nil
    // It is the file that qemu-img opens.
    if copier == .qemuImage { try contender.stop() }
    try servers.settle()
    FreeMemory.warm(bytes: settings.spanBytes + settings.spanBytes / 4)
    let start = monotonicNanoseconds()
    if let target {
      try servers.awaitJob(servers.beginBackup(contender, to: target, mode: "full"))
    } else if copier == .nbdcopy {
      try Tool.shell(
        "nbdcopy --flush '\(contender.address.uri)' '\(store.address.uri)'", seconds: 600)
    } else {
      try Tool.shell(
        "qemu-img convert -n -f parallels -O raw '\(contender.files[0])' '\(store.address.uri)'",
        seconds: 600)
    }
    let seconds = Double(monotonicNanoseconds() - start) / 1e9
    if let target { try servers.removeTarget(target) }
    if copier == .qemuImage {
      try servers.remove(contender.files[0])
    } else {
      try finishChain(contender)
    }
    return seconds
  }

  /// An image of QEMU's own format with the working set in it.
  private func filledImage() throws -> String {
    let contender = try filled(.qcow2)
    try contender.stop()
    return contender.files[0]
  }

  // MARK: The guest

  /// What a target takes that is slower than every guest, and has not had everything when they end.
  private var slowBytesPerSecond: Int { min(20 << 20, settings.spanBytes / 16) }

  /// 4 KiB writes during a full backup to a target that is slow.
  private func backupGuestRow() throws {
    let row = try measure(
      "backup-guest", "4 KiB writes, depth 4, during a backup to a slow target", unit: "op/s",
      [Report.Goal(against: Copier.daemon.rawValue, ratio: 1.5)],
      of: [Copier.ploopd, .daemon], name: \.rawValue
    ) { copier, round in
      let store = try servers.memory(
        sizeBytes: settings.diskBytes, bytesPerSecond: slowBytesPerSecond)
      defer { try? store.stop() }
      return try copier == .daemon
        ? writeBesideDaemon(store, round) : writeBesideJob(store, round)
    }
    guard let row else { return }
    keep(
      Report.Row(
        id: "backup-guest-p99", title: "the p99 of these writes", unit: "µs",
        goals: [Report.Goal(against: Copier.daemon.rawValue, ratio: 0.5, atMost: true)],
        contenders: row.contenders.map { measured in
          Report.Measured(
            name: measured.name, samples: measured.samples.map { Report.Sample(value: $0.p99 ?? 0) }
          )
        }))
  }

  private func guestWrites(_ contender: Contender, _ round: Int) throws -> Report.Sample {
    Report.Sample(
      try load(contender) {
        ($0.kind, $0.depth, $0.seed) = (.write, 4, UInt64(round + 1))
      })
  }

  private func writeBesideJob(_ store: Contender, _ round: Int) throws -> Report.Sample {
    let contender = try filled(.ploopd)
    let target = try servers.addTarget(#""type":"nbd","uri":"\#(store.address.uri)""#)
    try servers.settle()
    let job = try servers.beginBackup(contender, to: target, mode: "full")
    try servers.awaitJob(job, in: "copying")
    let sample = try guestWrites(contender, round)
    try servers.cancelJob(job)
    try servers.removeTarget(target)
    try finishChain(contender)
    return sample
  }

  private func writeBesideDaemon(_ store: Contender, _ round: Int) throws -> Report.Sample {
    let daemon = try StorageDaemon(servers, filledImage())
    try servers.settle()
    try daemon.beginBackup(to: store.address.socketPath)
    let sample = try guestWrites(daemon.contender, round)
    try daemon.cancelBackup()
    try finish(daemon.contender)
    return sample
  }

  // MARK: An increment

  /// Increments of a disk of which a part was written: the time follows the part, not the disk.
  private func incrementRow() throws {
    enum Part: Int, CaseIterable { case one = 1, two }
    func name(_ part: Part) -> String { "\(part.rawValue) % written" }
    let contender = try filled(.ploopd)
    let target = try servers.addTarget(#""type":"directory","path":"main:backups""#)
    try servers.awaitJob(servers.beginBackup(contender, to: target, mode: "full"))
    try measure(
      "increment", "increment of a disk of \(settings.diskBytes >> 30) GiB", unit: "s",
      [Report.Goal(of: name(.two), against: name(.one), ratio: 2.2, atMost: true)],
      of: Part.allCases, name: name
    ) { part, _ in
      let bytes = (max(1, (settings.diskBytes / 100) >> 20) * part.rawValue) << 20
      try fill(contender, bytes: min(bytes, settings.spanBytes))
      try servers.settle()
      let start = monotonicNanoseconds()
      try servers.awaitJob(servers.beginBackup(contender, to: target, mode: "incremental"))
      return Report.Sample(value: Double(monotonicNanoseconds() - start) / 1e9)
    }
    try servers.removeTarget(target)
    try finishChain(contender)
    try Tool.shell("rm -rf '\(servers.folder)/ploopd/images/backups'")
  }
}
