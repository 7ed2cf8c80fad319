internal import CNBD
internal import Glibc
package import PloopIO

/// A program of QEMU's that serves a file in a format of its own to us alone, for reading.
///
/// It gets a socket by the way of systemd, which nobody else has, and ends with the connection.
package enum NBDProgram {
  private static let path = "/usr/bin/qemu-nbd"

  /// Formats that need it, as it calls them.
  package enum Format: String, CaseIterable, Sendable {
    case qcow2
  }

  package static var isInstalled: Bool { access(path, X_OK) == 0 }

  /// - Parameter file: that names no other file; the program is handed it, not its name.
  /// - Throws: `.target` when the program cannot be started, or cannot read the file.
  package static func serve(
    _ file: ImageFile, _ format: Format
  ) throws(BackupError) -> any BlockExport {
    let command: [String] = file.withDescriptor { descriptor in
      [
        path, "--read-only", "--format=\(format.rawValue)", "--shared=1",
        "/proc/\(getpid())/fd/\(descriptor)",
      ]
    }
    return NamedExport(
      name: file.path, export: try NBDConnection(file.path, runningFor: command), file: file)
  }
}

/// An export that is called as the file is which is behind it, and keeps that open.
private struct NamedExport: BlockExport {
  let name: String
  let export: any BlockExport
  let file: ImageFile

  var facts: ExportFacts { export.facts }

  func read(into region: ByteRegion, at offset: UInt64) throws(BackupError) {
    try export.read(into: region, at: offset)
  }

  func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {
    try export.write(region, at: offset)
  }

  func zero(_ range: Range<UInt64>) throws(BackupError) { try export.zero(range) }
  func flush() throws(BackupError) { try export.flush() }

  func extents(in range: Range<UInt64>) throws(BackupError) -> [ExportExtent] {
    try export.extents(in: range)
  }

  func hangUp() { export.hangUp() }
}
