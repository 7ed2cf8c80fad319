internal import ArgumentParser
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

/// One image, or several that are the chain of one disk.
struct ChainArguments: ParsableArguments {
  @Argument(help: "The image; of a chain all images, oldest first.") var files: [String]
  @Option(help: "A raw file below the first image.") var rawBase: String?

  /// What was named, oldest first.
  var all: [String] { (rawBase.map { [$0] } ?? []) + files }

  /// Opens every file, for reading if nothing else is said. Locks that are taken on them go with the result.
  func sources(writable: Bool = false) throws(DeviceError) -> [DeltaSource] {
    var sources: [DeltaSource] = []
    for (level, file) in all.enumerated() {
      sources.append(
        try ImagePath(file).source(
          isRaw: level == 0 && rawBase != nil, writable: writable))
    }
    return sources
  }
}
