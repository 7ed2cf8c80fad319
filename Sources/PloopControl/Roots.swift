internal import Glibc
package import PloopIO

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

    /// The folder that holds it.
    var parent: Location { Location(root: root, components: Array(components.dropLast())) }

    /// Whether it is a folder, or the file itself, beneath which another place lies.
    func holds(_ other: Location) -> Bool {
      root == other.root && other.components.starts(with: components)
    }

    func appending(_ name: String) -> Location {
      Location(root: root, components: components + [name])
    }

    /// Another file of the same folder.
    func sibling(_ name: String) -> Location {
      Location(root: root, components: components.dropLast() + [name])
    }
  }

  private let folders: [String: ImageFolder]
  /// Where the roots lie, for absolute paths in descriptors: as they were given, and without links.
  private let places: [(name: String, components: [String])]
  package let names: [String]

  /// - Parameters:
  ///   - folders: name and path of each; a name is one that ``Names`` allows.
  ///   - probe: watches all that is done to files in them.
  /// - Throws: `invalid-value` for a wrong name, or the error of opening a folder.
  package init(
    _ roots: [(name: String, path: String)], probe: (any IOProbe)? = nil
  ) throws(ServiceError) {
    var folders: [String: ImageFolder] = [:]
    var places: [(name: String, components: [String])] = []
    for (name, path) in roots {
      try Names.require(name, as: "the root", pointer: "")
      guard folders[name] == nil else {
        throw ServiceError(.invalidValue, "the root \(name) is there twice")
      }
      do throws(IOError) {
        folders[name] = try ImageFolder(path: path, label: "\(name):", probe: probe)
        if path.hasPrefix("/") { places.append((name, Roots.components(path))) }
        if let real = realpath(path, nil) {
          places.append((name, Roots.components(String(cString: real))))
          free(real)
        }
      } catch {
        throw ServiceError(.imageUnreadable, "the root \(name) cannot be opened: \(error)")
      }
    }
    self.folders = folders
    // The innermost root of a path comes first.
    self.places = places.sorted { $0.components.count > $1.components.count }
    names = roots.map(\.name)
  }

  func freeBytes(of root: String) -> UInt64? { try? folders[root]?.space().freeBytes }

  /// Of the file system that a file lies on, or will lie on once its folders are made.
  func space(around location: Location) -> FilesystemSpace? {
    guard let root = folders[location.root] else { return nil }
    var folder = location.components.dropLast()
    while true {
      if let found = try? root.folder(beneath: folder.joined(separator: "/")) {
        return try? found.space()
      }
      guard folder.popLast() != nil else { return nil }
    }
  }

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
        .valueImpossible,
        root.map { "there is no root \($0)" }
          ?? "\(path) names no root; write it as root:relative",
        remedy: "the roots are: \(names.joined(separator: ", "))", pointer: pointer)
    }
    guard !relative.utf8.contains(0), relative.utf8.count < 4096 else {
      throw ServiceError(.valueImpossible, "the path cannot be one of a file", pointer: pointer)
    }
    let components = Roots.components(relative)
    guard relative.utf8.first != UInt8(ascii: "/"), !components.contains("..") else {
      throw ServiceError(
        .pathOutsideRoot, "\(path) does not stay beneath its root", pointer: pointer)
    }
    guard !components.isEmpty else {
      throw ServiceError(.valueImpossible, "\(path) names the root itself", pointer: pointer)
    }
    return Location(root: root, components: components)
  }

  /// Where a file lies that a descriptor names: from the descriptor's own folder, or absolutely. It
  /// must end beneath a root, its own or another one, whatever way leads there.
  func resolve(
    _ file: String, from descriptor: Location, pointer: String
  ) throws(ServiceError) -> Location {
    let outside = ServiceError(
      .pathOutsideRoot, "\(descriptor.path) names \(file.prefix(200)), which lies beneath no root",
      remedy: "make a root of its folder, or correct the descriptor", errno: "EXDEV",
      pointer: pointer)
    guard let own = places.last(where: { $0.name == descriptor.root })?.components else {
      throw outside
    }
    let isAbsolute = file.utf8.first == UInt8(ascii: "/")
    var path = isAbsolute ? [] : own + descriptor.components.dropLast()
    for part in Roots.components(file) {
      guard part == ".." else {
        path.append(part)
        continue
      }
      guard path.popLast() != nil else { throw outside }
    }
    // The descriptor's own root first: others may lie inside of it.
    let place =
      places.first { $0.name == descriptor.root && path.starts(with: $0.components) }
      ?? places.first { path.starts(with: $0.components) }
    guard let place, path.count > place.components.count else { throw outside }
    return Location(root: place.name, components: Array(path[place.components.count...]))
  }

  /// Where a file lies that an absolute path names.
  ///
  /// - Throws: `path-outside-root` for one beneath no root.
  func locate(absolute path: String, pointer: String) throws(ServiceError) -> Location {
    let components = Roots.components(path)
    guard !components.contains(".."),
      let place = places.first(where: { components.starts(with: $0.components) }),
      components.count > place.components.count
    else {
      throw ServiceError(
        .pathOutsideRoot, "\(path.prefix(200)) lies beneath no root",
        remedy: "make a root of its folder", errno: "EXDEV", pointer: pointer)
    }
    return Location(root: place.name, components: Array(components[place.components.count...]))
  }

  /// How a descriptor names a file, so that ``resolve(_:from:pointer:)`` finds it: from its own folder
  /// beneath one root, absolutely from another.
  func reference(to file: Location, from descriptor: Location) -> String {
    guard file.root == descriptor.root else {
      let place = places.last { $0.name == file.root }?.components ?? []
      return "/" + (place + file.components).joined(separator: "/")
    }
    let folder = descriptor.components.dropLast()
    let common = zip(folder, file.components.dropLast()).prefix { $0 == $1 }.count
    let up = Array(repeating: "..", count: folder.count - common)
    return (up + file.components[common...]).joined(separator: "/")
  }

  /// The parts of a path, as the kernel takes it apart: at each slash, whatever follows it, where
  /// Swift would count a slash and a combining mark behind it as another character.
  private static func components(_ path: some StringProtocol) -> [String] {
    String(path).unicodeScalars.split(separator: "/").map(String.init).filter { $0 != "." }
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

  /// Opens a folder itself.
  func folder(at location: Location, pointer: String) throws(ServiceError) -> ImageFolder {
    try opening(location, pointer) { (root) throws(IOError) in
      try root.folder(beneath: location.components.joined(separator: "/"))
    }
  }

  /// Makes a folder, with its parents, and opens it.
  func makeFolder(at location: Location, pointer: String) throws(ServiceError) -> ImageFolder {
    try opening(location, pointer) { (root) throws(IOError) in
      try root.makeFolder(beneath: location.components.joined(separator: "/"))
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
      throw ServiceError(.valueImpossible, "there is no root \(location.root)", pointer: pointer)
    }
    do throws(IOError) { return try body(root) } catch {
      throw ServiceError(opening: location.path, error, pointer: pointer)
    }
  }
}
