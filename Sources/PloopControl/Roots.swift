internal import PloopIO

/// The folders that images may lie in, by name. A path in the API is `root:relative`; nothing opens
/// a file outside of them, whatever links say.
package struct Roots: Sendable {
  /// Where an image is, as its root and the way from there.
  struct Location: Hashable, Sendable {
    let root: String
    /// Without empty, `.` and `..` components.
    let components: [String]

    var path: String { "\(root):\(components.joined(separator: "/"))" }
    var directory: String { components.dropLast().joined(separator: "/") }
    var name: String { components.last ?? "" }

    func appending(_ name: String) -> Location {
      Location(root: root, components: components + [name])
    }
  }

  private let folders: [String: ImageFolder]
  package let names: [String]

  /// - Parameter folders: name and path of each; a name is one that ``Names`` allows.
  /// - Throws: `invalid-value` for a wrong name, or the error of opening a folder.
  package init(_ roots: [(name: String, path: String)]) throws(ServiceError) {
    var folders: [String: ImageFolder] = [:]
    for (name, path) in roots {
      try Names.require(name, as: "the root", pointer: "")
      guard folders[name] == nil else {
        throw ServiceError(.invalidValue, "the root \(name) is there twice")
      }
      do throws(IOError) {
        folders[name] = try ImageFolder(path: path, label: "\(name):")
      } catch {
        throw ServiceError(.imageUnreadable, "the root \(name) cannot be opened: \(error)")
      }
    }
    self.folders = folders
    names = roots.map(\.name)
  }

  func freeBytes(of root: String) -> UInt64? { try? folders[root]?.freeBytes() }

  /// Reads `root:relative`, or `relative` where there is only one root.
  func locate(_ path: String, pointer: String) throws(ServiceError) -> Location {
    var root = names.count == 1 ? names.first : nil
    var relative = Substring(path)
    if let colon = path.firstIndex(of: ":"), !path[..<colon].contains("/") {
      root = String(path[..<colon])
      relative = path[path.index(after: colon)...]
    }
    guard let root, folders[root] != nil else {
      throw ServiceError(
        .invalidValue,
        root.map { "there is no root \($0)" }
          ?? "\(path) names no root; write it as root:relative",
        remedy: "the roots are: \(names.joined(separator: ", "))", pointer: pointer)
    }
    guard !relative.utf8.contains(0), relative.utf8.count < 4096 else {
      throw ServiceError(.invalidValue, "the path cannot be one of a file", pointer: pointer)
    }
    let components = relative.split(separator: "/").map(String.init).filter { $0 != "." }
    guard !relative.hasPrefix("/"), !components.contains("..") else {
      throw ServiceError(
        .pathOutsideRoot, "\(path) does not stay beneath its root", pointer: pointer)
    }
    guard !components.isEmpty else {
      throw ServiceError(.invalidValue, "\(path) names the root itself", pointer: pointer)
    }
    return Location(root: root, components: components)
  }

  /// Opens the folder that holds a file.
  func folder(of location: Location, pointer: String) throws(ServiceError) -> ImageFolder {
    try opening(location, pointer) { (root) throws(IOError) in
      try root.folder(beneath: location.directory)
    }
  }

  /// Makes the folder that is to hold a file, with its parents, and opens it.
  func makeFolder(of location: Location, pointer: String) throws(ServiceError) -> ImageFolder {
    try opening(location, pointer) { (root) throws(IOError) in
      try root.makeFolder(beneath: location.directory)
    }
  }

  func open(
    _ location: Location, in folder: ImageFolder, writable: Bool, pointer: String
  ) throws(ServiceError) -> ImageFile {
    try opening(location, pointer) { (_) throws(IOError) in
      try folder.open(location.name, writable: writable)
    }
  }

  private func opening<Result>(
    _ location: Location, _ pointer: String,
    _ body: (ImageFolder) throws(IOError) -> Result
  ) throws(ServiceError) -> Result {
    guard let root = folders[location.root] else {
      throw ServiceError(.invalidValue, "there is no root \(location.root)", pointer: pointer)
    }
    do throws(IOError) { return try body(root) } catch {
      throw ServiceError(opening: location.path, error, pointer: pointer)
    }
  }
}
