import TestSupport
import Testing

/// QEMU 10, which asks for extended headers by itself, beside Debian's QEMU, which does not know them.
@Suite("Clients with extended headers")
struct ExtendedHeaderClientTests {
  private static let newer = "/opt/qemu-backport/usr/bin"
  private static let bytes = 8 << 40

  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path, logLevel: "info")
    #expect(try service.create("wide", sizeBytes: Self.bytes).status == 201)
  }

  /// The extents that a client sees, one `start length zero` a line, and the requests of type BLOCK_STATUS it made.
  private func map(with client: String) throws -> (extents: String, requests: Int) {
    let output = try Tool.shell(
      """
      \(client) --trace nbd_send_request map --output json -f raw '\(service.uri("wide"))' 2>'\(folder.path)/trace' \
        | python3 -c 'import json, sys
      for e in json.load(sys.stdin): print(e["start"], e["length"], e["zero"])'
      grep -c 'block status' '\(folder.path)/trace' || true
      """
    ).output.split(separator: "\n")
    return (output.dropLast().joined(separator: "\n"), Int(output.last ?? "") ?? -1)
  }

  @Test("see the whole of a large disk with few requests, and the same as clients without")
  func map() throws {
    let end = Self.bytes - (1 << 20)
    try Tool.shell(
      """
      \(Self.newer)/qemu-io -f raw -c 'write -P 7 3T 64k' -c 'write -P 8 \(end) 1M' -c flush \
        -c 'read -P 7 3T 64k' -c 'read -P 0 1T 1M' '\(service.uri("wide"))'
      """)
    let (wide, few) = try map(with: "\(Self.newer)/qemu-img")
    let (narrow, many) = try map(with: "qemu-img")
    #expect(wide == narrow && wide.split(separator: "\n").count == 4, "\(wide)\n\(narrow)")
    #expect(few > 0 && few < 10 && many > 1_000, "\(few), \(many)")
    #expect(try service.end() == 0)
  }

  @Test("zero terabytes at once, and copy what is left")
  func change() throws {
    let uri = service.uri("wide")
    try Tool.shell(
      """
      set -e
      \(Self.newer)/qemu-io -f raw -c 'write -P 1 0 1M' -c 'write -P 2 5T 1M' -c 'write -P 3 7T 1M' -c flush '\(uri)'
      \(Self.newer)/qemu-io -f raw -c 'write -z -u -n 1T 5T' -c 'write -z -u -n 6T 1536G' -c flush '\(uri)'
      qemu-io -f raw -c 'read -P 1 0 1M' -c 'read -P 0 5T 1M' -c 'read -P 0 7T 1M' '\(uri)'
      \(Self.newer)/qemu-img convert -f raw -O qcow2 '\(uri)' '\(folder.path)/copy.qcow2'
      # Not by a comparison: it asks for the status of 32 MiB at a time, a quarter of a million times.
      qemu-io -f qcow2 -c 'read -P 1 0 1M' -c 'read -P 0 5T 1M' -c 'read -P 0 7T 1M' '\(folder.path)/copy.qcow2'
      qemu-img map --output=json '\(folder.path)/copy.qcow2' | python3 -c '
      import json, sys
      data = [(extent["start"], extent["length"]) for extent in json.load(sys.stdin) if extent["data"]]
      assert data == [(0, 1 << 20)], data'
      """, seconds: 300)
    #expect(try service.end() == 0)
  }
}
