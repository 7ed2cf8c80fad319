internal import PloopIO
internal import TestSupport

/// A disk over TLS, as nbdcopy reads and writes it: with as many connections as it takes where servers allow it. What it
/// costs to be the client is part of it, half of all the work, so the server's processor time is a row as well.
///
/// They are left out of comparisons with another commit, which may not know them.
extension Suite {
  static let secureRowIDs = ["tls-read", "tls-write", "tls-cpu"]

  func secureRows() throws {
    guard settings.base == nil, Self.secureRowIDs.contains(where: wants) else { return }
    let certificates = try servers.makeCertificates()
    let contenders = try taking([.ploopd, .qemu]).map { peer in
      try peer == .ploopd ? secureService(certificates) : secureImage(certificates)
    }
    if wants("tls-read") || wants("tls-cpu") {
      let reads = try secureRow("tls-read", "disk read over TLS by nbdcopy", contenders) {
        try $0.copy("null:")
      }
      if wants("tls-cpu"), let reads {
        keepProcessorTime(
          reads, "tls-cpu", "server CPU of reads over TLS",
          [Report.Goal(against: Peer.qemu.rawValue, ratio: 1, atMost: true)])
      }
      for server in contenders { try verify(server, stamp: 1) }
    }
    if wants("tls-write") {
      let source = try secureSource(stamp: 2)
      try secureRow("tls-write", "disk written over TLS by nbdcopy", contenders) {
        try $0.copy(source, isWritten: true)
      }
      for server in contenders { try verify(server, stamp: 2) }
      try servers.remove(source)
    }
    for server in contenders { try finish(server.contender) }
  }

  @discardableResult
  private func secureRow(
    _ id: String, _ title: String, _ contenders: [SecureServer],
    _ body: (SecureServer) throws -> Void
  ) throws -> Report.Row? {
    try measure(
      id, title, unit: "MiB/s", [Report.Goal(against: Peer.qemu.rawValue, ratio: 1.2)],
      of: contenders, name: { $0.contender.name }
    ) { server, _ in
      let before = server.contender.process.flatMap { ProcessorTime.nanoseconds(of: $0) }
      let start = monotonicNanoseconds()
      try body(server)
      let seconds = Double(monotonicNanoseconds() - start) / 1e9
      let after = server.contender.process.flatMap { ProcessorTime.nanoseconds(of: $0) }
      let mebibytes = Double(settings.spanBytes >> 20)
      return Report.Sample(
        value: mebibytes / seconds,
        serverMicroseconds: after.flatMap { after in
          before.map { Double(after - $0) / 1e3 / mebibytes }
        })
    }
  }

  private func secureService(
    _ certificates: (server: String, client: String)
  ) throws -> SecureServer {
    try servers.serveSecurely(
      certificates, program: settings.program, sizeBytes: settings.spanBytes
    ) {
      try fill($0, bytes: settings.spanBytes)
      try repopulate($0)
    }
  }

  private func secureImage(
    _ certificates: (server: String, client: String)
  ) throws -> SecureServer {
    let file = try servers.path(.qemu, "secure")
    try servers.make(.qemu, file, sizeBytes: settings.spanBytes)
    let writer = try servers.serve(.qemu, [file])
    try fill(writer, bytes: settings.spanBytes)
    try writer.stop()
    let reader = try servers.serve(.qemu, [file])
    try repopulate(reader)
    try reader.stop()
    return try servers.serveSecurely(certificates, image: file)
  }

  /// - Returns: a file with what a disk is to have.
  private func secureSource(stamp: UInt8) throws -> String {
    let file = try servers.path(.nbdkit, "source")
    try servers.make(.nbdkit, file, sizeBytes: settings.spanBytes)
    let writer = try servers.serve(.nbdkit, [file])
    try fill(writer, bytes: settings.spanBytes, stamp: stamp)
    try writer.stop()
    return file
  }

  /// Looks at every byte that comes over TLS.
  private func verify(_ server: SecureServer, stamp: UInt8) throws {
    let store = try servers.memory(sizeBytes: settings.spanBytes)
    try server.copy(store.address.uri)
    try verify(store, accepted: stamp...stamp)
    try store.stop()
  }
}
