internal import Glibc
internal import PloopDevice
internal import PloopIO

/// A file as it was named on the command line.
struct ImagePath {
  let folderPath: String
  let name: String

  init(_ text: String) {
    let slash = text.lastIndex(of: "/")
    folderPath = slash.map { $0 == text.startIndex ? "/" : String(text[..<$0]) } ?? "."
    name = slash.map { String(text[text.index(after: $0)...]) } ?? text
  }

  /// The file itself when this is a link to it: a folder opens no links, and repair puts its backup
  /// beside the image.
  var resolved: ImagePath {
    var status = stat()
    let text = "\(folderPath)/\(name)"
    guard lstat(text, &status) == 0, status.st_mode & S_IFMT == S_IFLNK,
      let found = realpath(text, nil)
    else { return self }
    defer { free(found) }
    return ImagePath(String(cString: found))
  }

  func folder() throws(DeviceError) -> ImageFolder {
    do { return try ImageFolder(path: folderPath) } catch { throw DeviceError(error) }
  }

  func source(isRaw: Bool = false, writable: Bool = false) throws(DeviceError) -> DeltaSource {
    let path = resolved
    let folder = try path.folder()
    do {
      return DeltaSource(
        file: try folder.open(path.name, writable: writable), folder: folder, name: path.name,
        isRaw: isRaw)
    } catch {
      throw DeviceError(error)
    }
  }
}
