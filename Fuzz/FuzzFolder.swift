internal import FoundationEssentials
internal import Glibc
internal import PloopIO

/// A folder in memory with the files that a target reads; gone when nobody has it any more.
final class FuzzFolder: Sendable {
  private let path: String
  let folder: ImageFolder

  /// Beneath FUZZ_FOLDER, where somebody cleans up behind a target that dies.
  init() throws {
    let parent = getenv("FUZZ_FOLDER").map { String(cString: $0) } ?? "/dev/shm"
    var template = Array("\(parent)/ploopd-fuzz-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw IOError("mkdtemp", path: parent, code: errno) }
    path = String(
      decoding: template.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    folder = try ImageFolder(path: path)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Puts a file there, in place of what has the name.
  ///
  /// - Parameter sizeBytes: with a hole behind the bytes, if they are fewer.
  func put(_ name: String, _ bytes: [UInt8], sizeBytes: UInt64 = 0) throws {
    try folder.removeIfThere(name)
    let file = try folder.create(name)
    if !bytes.isEmpty { try file.write(AlignedBuffer(bytes).region, at: 0) }
    if sizeBytes > UInt64(bytes.count) { try file.truncate(to: sizeBytes) }
  }

  func has(_ name: String) throws -> Bool { try folder.names().contains(name) }
}
