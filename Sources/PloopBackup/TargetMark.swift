internal import Glibc
package import PloopIO

/// A file that tells a target's folder from another one in its place, such as a mount point where nothing is
/// mounted. It holds a name and a newline.
package enum TargetMark {
  package static let fileName = ".ploopd-target"
  private static let limitBytes = 128

  /// - Returns: nil where there is no mark that can be read.
  package static func read(in folder: ImageFolder) throws(BackupError) -> String? {
    guard folder.contains(fileName) else { return nil }
    let bytes = try onTarget { () throws(IOError) in
      try folder.bytes(of: fileName, limit: limitBytes)
    }
    let name = String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    return BackupNames.isValid(name) ? name : nil
  }

  /// Finds a folder's mark, or makes it, durably.
  ///
  /// - Parameter name: of a new one.
  /// - Returns: nil in a folder that can only be read, and has none.
  package static func make(
    _ name: String, in folder: ImageFolder
  ) throws(BackupError) -> String? {
    if let mark = try read(in: folder) { return mark }
    do throws(IOError) { try folder.replace(fileName, with: Array("\(name)\n".utf8)) } catch {
      guard [EROFS, EACCES, EPERM, ENOSYS, EOPNOTSUPP].contains(error.code) else {
        throw BackupError(error)
      }
      return nil
    }
    return name
  }
}
