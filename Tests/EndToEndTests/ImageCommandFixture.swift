import Foundation
import TestSupport
import Testing

/// A folder in which the built `ploopd` and the tools that judge it work on images.
struct ImageCommandFixture {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Runs a command line in the folder; `ploopd` and OpenVZ's `ploop` can be called by their names.
  @discardableResult
  func shell(_ command: String, check: Bool = true) throws -> Tool.Result {
    try Tool.shell(
      """
      cd '\(folder.path)' && export PATH="$PATH:/usr/sbin:/sbin"
      ploopd() { '\(RunningService.program)' "$@"; }
      ploop() { \(OpenVZ.padding) command ploop "$@"; }
      \(command)
      """, check: check)
  }

  /// What a command prints as JSON; its exit status may be any.
  func json<Value>(_ command: String, as _: Value.Type = [String: Any].self) throws -> Value {
    let text = try shell("\(command) 2> errors", check: false).output
    let value = try JSONSerialization.jsonObject(with: Data(text.utf8))
    return try #require(value as? Value, "\(command) printed \(text)")
  }

  func status(_ command: String) throws -> Int32 { try shell(command, check: false).status }

  func sum(_ name: String) throws -> String { try shell("sha256sum < \(name)").output }

  /// The content of the disk, read by QEMU.
  func content(_ name: String) throws -> String {
    try shell(
      "qemu-img convert -U --image-opts driver=parallels,file.filename=\(name) -O raw content.raw")
    return try sum("content.raw")
  }

  /// Writes bytes into a file, at an offset.
  func patch(_ name: String, at offset: Int, _ bytes: [UInt8]) throws {
    let file = try #require(FileHandle(forUpdatingAtPath: "\(folder.path)/\(name)"))
    try file.seek(toOffset: UInt64(offset))
    try file.write(contentsOf: Data(bytes))
    try file.close()
  }

  /// Sets an entry of an image's index.
  func patch(_ name: String, entry cluster: Int, to value: UInt32) throws {
    try patch(name, at: 64 + 4 * cluster, littleEndian(value))
  }

  func littleEndian<Number: FixedWidthInteger>(_ value: Number) -> [UInt8] {
    (0..<MemoryLayout<Number>.size).map { UInt8(truncatingIfNeeded: value >> Number(8 * $0)) }
  }

  /// An image by QEMU, version 2: of its clusters of 64 KiB 0 to 2 and 9 are mapped.
  func makeImage(_ name: String, cluster: String = "64k") throws {
    try shell(
      """
      qemu-img create -q -f parallels -o cluster_size=\(cluster) \(name) 4M
      qemu-io -f parallels -c 'write -P 1 0 192k' -c 'write -P 2 576k 64k' \(name)
      """)
  }

  /// An image by OpenVZ's ploop, version 1, clusters of 64 KiB, mapped like ``makeImage(_:)``.
  func makeVersion1(_ name: String) throws {
    try shell(
      """
      ploop init -s 4M -v 1 -b 128 -t none \(name) && rm -f DiskDescriptor.xml*
      qemu-io -f parallels -c 'write -P 1 0 192k' -c 'write -P 2 576k 64k' \(name)
      """)
  }

  static let bitmapID = "e4f2eed0-37fe-4539-b50b-85d2e7fd235f"

  /// Stores a dirty bitmap in an image of ``makeImage(_:cluster:)``: bits in cluster 6 of the file,
  /// the extension in cluster 5.
  func addBitmap(to name: String) throws {
    let cluster = 65536
    let id = stride(from: 0, to: 32, by: 2).map { index -> UInt8 in
      let digits = Array(ImageCommandFixture.bitmapID.filter { $0 != "-" })
      return UInt8(String(digits[index...(index + 1)]), radix: 16) ?? 0
    }
    var checked = littleEndian(0x2038_5FAE_252C_B34A as UInt64) + littleEndian(0 as UInt64)
    checked += littleEndian(40 as UInt32) + littleEndian(0 as UInt32)
    checked += littleEndian(UInt64(4 << 20) / 512) + id
    checked += littleEndian(128 as UInt32) + littleEndian(1 as UInt32)
    checked += littleEndian(UInt64(6 * cluster / 512))
    checked += [UInt8](repeating: 0, count: cluster - 24 - checked.count)
    try shell("truncate -s \(7 * cluster) \(name)")
    try patch(name, at: 5 * cluster + 24, checked)
    let sum = try shell("tail -c +\(5 * cluster + 25) \(name) | head -c \(cluster - 24) | md5sum")
      .output.prefix(32)
    let digits = Array(sum)
    let bytes = stride(from: 0, to: 32, by: 2).map {
      UInt8(String(digits[$0...($0 + 1)]), radix: 16) ?? 0
    }
    try patch(name, at: 5 * cluster, littleEndian(0xAB23_4CEF_23DC_EA87 as UInt64) + bytes)
    try patch(name, at: 6 * cluster, [0b0000_0111])
    try patch(name, at: 56, littleEndian(UInt64(5 * cluster / 512)))
  }
}
