internal import PloopIO
internal import TestSupport

/// Rows that need an image of their own for each measurement, or one of another shape.
extension Suite {
  func freshRows() throws {
    if wants("first-touch") { try firstTouchRow() }
    if wants("cow") { try copyOnWriteRow() }
    if wants("cow-reflink") { try sharingRow() }
    if wants("sparse") { try sparseRow() }
  }

  /// 4 KiB into each cluster of an empty disk.
  private func firstTouchRow() throws {
    try measure(
      "first-touch", "4 KiB first touch, depth 16", unit: "op/s",
      goals([
        Report.Goal(against: Peer.qemu.rawValue, ratio: 3),
        Report.Goal(against: Peer.nbdkit.rawValue, ratio: 1.5),
      ]), of: taking([.ploopd, .qemu, .qcow2, .nbdkit, .nbdServer]), name: \.rawValue
    ) { peer, _ in
      let file = try servers.path(peer, "fresh")
      try servers.make(peer, file, sizeBytes: settings.diskBytes)
      return try touchEveryCluster(
        try servers.serve(peer, [file]), bytes: settings.diskBytes, accepted: 0...2)
    }
  }

  private func copyOnWriteRow() throws {
    try copyOnWriteRow(
      "cow", "copy-on-write of 1 MiB clusters, depth 16",
      goals([Report.Goal(against: Peer.qcow2.rawValue, ratio: 3)]), on: servers)
  }

  /// The same on a file system whose files can share blocks, and what that gives a bare program.
  private func sharingRow() throws {
    let id = "cow-reflink"
    // For two images of the span and a copy of each, and as much again.
    let total = max(1 << 10, 8 * settings.spanBytes >> 20)
    let folder = try TemporaryFolder(beneath: servers.folder)
    let filesystem: SmallFilesystem
    do {
      filesystem = try SmallFilesystem(in: folder, "xfs", .xfs, total: total)
    } catch let failure as Tool.Failure {
      return leaveOut(id, why: failure.description)
    }
    // What lies on it and uses it has to end before it does.
    try withExtendedLifetime(filesystem) {
      let servers = try Servers(beneath: filesystem.path, programs: settings.programs)
      try copyOnWriteRow(
        id, "copy-on-write of 1 MiB clusters on XFS, depth 16",
        goals([
          Report.Goal(against: Peer.qcow2.rawValue, ratio: 1.5),
          Report.Goal(against: CloneReference.name, ratio: 0.8),
        ]), on: servers,
        limit: settings.base == nil
          ? CloneReference(in: servers.folder, bytes: settings.spanBytes) : nil)
      try servers.shutDown()
    }
  }

  /// 4 KiB into each cluster that only the image below has.
  ///
  /// - Parameters:
  ///   - servers: on whose file system the images lie.
  ///   - limit: a program to compare with, which is no server.
  private func copyOnWriteRow(
    _ id: String, _ title: String, _ goals: [Report.Goal], on servers: Servers,
    limit: CloneReference? = nil
  ) throws {
    let peers = taking([.ploopd, .qcow2])
    var bases: [Peer: String] = [:]
    for peer in peers {
      let base = try servers.path(peer, "base")
      try servers.make(peer, base, sizeBytes: settings.diskBytes)
      let writer = try servers.serve(peer, [base])
      try fill(writer, bytes: settings.spanBytes)
      try verify(writer)
      try writer.stop()
      try pin(base)
      bases[peer] = base
    }
    try measure(
      id, title, unit: "op/s", goals, of: peers.map(Optional.some) + (limit == nil ? [] : [nil]),
      on: servers,
      name: { $0?.rawValue ?? CloneReference.name }
    ) { peer, _ in
      guard let peer, let base = bases[peer] else {
        guard let limit else { throw BenchFailure("no base") }
        return try limit.sample(depth: 16)
      }
      let top = try servers.path(peer, "top")
      try servers.make(peer, top, sizeBytes: settings.diskBytes, backing: base)
      return try touchEveryCluster(
        try servers.serve(peer, [base, top]), bytes: settings.spanBytes, accepted: 1...2)
    }
    unpin(Array(bases.values))
    for base in bases.values { try servers.remove(base) }
  }

  /// Writes 4 KiB into each cluster, looks whether all are there, and removes the image.
  private func touchEveryCluster(
    _ contender: Contender, bytes: Int, accepted: ClosedRange<UInt8>
  ) throws -> Report.Sample {
    let result = try load(contender, isFresh: true) {
      ($0.kind, $0.order, $0.limit, $0.depth) = (.write, .scatter, .pass, 16)
      ($0.strideBytes, $0.spanBytes, $0.stamp) = (1 << 20, UInt64(bytes), 2)
    }
    try verify(
      contender, bytes: bytes, accepted: accepted, stamp: 2, least: result.writtenUnits)
    try contender.stop()
    if let top = contender.files.last { try servers.remove(top) }
    return Report.Sample(result)
  }

  /// A disk with data in a tenth of its clusters, copied by nbdcopy.
  private func sparseRow() throws {
    let contenders = try taking([.ploopd, .qemu, .qcow2, .nbdkit, .nbdServer]).map { peer in
      let file = try servers.path(peer, "sparse")
      try servers.make(peer, file, sizeBytes: settings.diskBytes)
      let contender = try servers.serve(peer, [file])
      let written = try load(contender) {
        ($0.kind, $0.order, $0.limit, $0.blockBytes) = (.write, .sequential, .pass, 1 << 20)
        ($0.strideBytes, $0.spanBytes) = (10 << 20, UInt64(settings.diskBytes))
      }
      try verify(
        contender, bytes: settings.diskBytes, accepted: 0...1, stamp: 1,
        least: written.writtenUnits, structuredReplies: true)
      return contender
    }
    try measure(
      "sparse", "sparse disk through nbdcopy", unit: "copies/s",
      goals([
        Report.Goal(against: Peer.qemu.rawValue, ratio: 1.5),
        Report.Goal(against: Peer.nbdkit.rawValue, ratio: 1.2),
      ]), of: contenders, name: \.name
    ) { contender, _ in
      let before = contender.process.flatMap { ProcessorTime.nanoseconds(of: $0) }
      let start = monotonicNanoseconds()
      try Tool.shell("nbdcopy '\(contender.address.uri)' null:")
      let seconds = Double(monotonicNanoseconds() - start) / 1e9
      let after = contender.process.flatMap { ProcessorTime.nanoseconds(of: $0) }
      return Report.Sample(
        value: 1 / seconds,
        serverMicroseconds: after.flatMap { after in before.map { Double(after - $0) / 1e3 } })
    }
    for contender in contenders { try finish(contender) }
  }
}
