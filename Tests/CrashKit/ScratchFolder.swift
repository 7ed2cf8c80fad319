internal import Glibc

/// A folder in memory (tmpfs where there is one), removed with everything in it.
package final class ScratchFolder {
  package let path: String

  package init() throws {
    for parent in ["/dev/shm", "/tmp"] {
      var template = Array("\(parent)/ploopd-crash-XXXXXX".utf8CString)
      if mkdtemp(&template) != nil {
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        return
      }
    }
    throw ScratchError()
  }

  package struct ScratchError: Error {}

  /// A new empty folder inside.
  package func folder(_ name: String) -> String {
    let inner = "\(path)/\(name)"
    mkdir(inner, 0o700)
    return inner
  }

  deinit { ScratchFolder.remove(path) }

  package static func remove(_ path: String) {
    if let names = opendir(path) {
      while let entry = readdir(names) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) {
          String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != ".", name != ".." { remove("\(path)/\(name)") }
      }
      closedir(names)
      rmdir(path)
    } else {
      unlink(path)
    }
  }
}
