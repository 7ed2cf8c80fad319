internal import CLinux
internal import Glibc

/// An open folder with images in it. Names of images are created, replaced and removed here only,
/// so that the probe sees it and nobody forgets to sync the folder.
package final class ImageFolder: Sendable {
  /// For people and in errors; files in it are named by it. Nothing is opened by it.
  package let path: String
  private let descriptor: OwnedDescriptor
  private let probe: (any IOProbe)?

  /// Opens the folder at a path of the caller's own (not one from a request).
  ///
  /// - Parameter label: how it is called from then on, instead of by its path: `main:` makes its
  ///   files `main:vm1/top.hds`.
  package init(
    path: String, label: String? = nil, probe: (any IOProbe)? = nil
  ) throws(IOError) {
    let number = clinux_open(path, O_RDONLY | O_DIRECTORY, 0)
    guard number >= 0 else { throw .last("open", path) }
    descriptor = OwnedDescriptor(number)
    self.path = label ?? path
    self.probe = probe
  }

  /// How a file or folder in this one is called.
  private func name(of entry: String) -> String {
    path.hasSuffix(":") ? path + entry : "\(path)/\(entry)"
  }

  private init(_ descriptor: consuming OwnedDescriptor, path: String, probe: (any IOProbe)?) {
    self.descriptor = descriptor
    self.path = path
    self.probe = probe
  }

  /// Opens a folder beneath this one; nothing in `relative` may lead out of it, links included
  /// (man 2 openat2: RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS).
  ///
  /// - Parameter relative: `""` or `"."` is this folder itself.
  package func folder(beneath relative: String) throws(IOError) -> ImageFolder {
    let full = relative.isEmpty || relative == "." ? path : name(of: relative)
    let number = clinux_open_beneath(
      descriptor.number, relative.isEmpty ? "." : relative, UInt64(O_RDONLY | O_DIRECTORY), 0)
    guard number >= 0 else { throw .last("open", full) }
    return ImageFolder(OwnedDescriptor(number), path: full, probe: probe)
  }

  /// Makes a folder beneath this one, with its parents, durably, and opens it. Existing ones are kept.
  package func makeFolder(beneath relative: String) throws(IOError) -> ImageFolder {
    var folder = try self.folder(beneath: "")
    for part in relative.unicodeScalars.split(separator: "/").map(String.init) where part != "." {
      let name = part
      guard name != ".." else { throw IOError("mkdir", path: self.name(of: relative), code: EXDEV) }
      let full = folder.name(of: name)
      try folder.refuse(.makeFolder, "mkdir", full)
      if mkdirat(folder.descriptor.number, name, 0o750) == 0 {
        folder.probe?.succeeded(
          .makeFolder, path: full, bytes: UnsafeRawBufferPointer(start: nil, count: 0))
      } else if errno != EEXIST {
        throw .last("mkdir", full)
      }
      // Also of one that is there: whoever made it may have been killed before this, or not have come to it yet.
      try folder.sync()
      folder = try folder.folder(beneath: name)
    }
    return folder
  }

  /// Opens an image beneath this folder without following any link.
  package func open(_ name: String, writable: Bool) throws(IOError) -> ImageFile {
    // O_NONBLOCK: a FIFO in an image's place must not hang the service; it is refused as no file.
    let flags = (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK
    let number = clinux_open_beneath(descriptor.number, name, UInt64(flags), 0)
    guard number >= 0 else { throw .last("open", self.name(of: name)) }
    return try ImageFile(
      OwnedDescriptor(number), path: self.name(of: name), isWritable: writable, probe: probe)
  }

  /// Makes a new file; one of that name must not exist (EEXIST).
  package func create(_ name: String, mode: UInt32 = 0o640) throws(IOError) -> ImageFile {
    let full = self.name(of: name)
    try refuse(.create, "create", full)
    let number = clinux_open_beneath(
      descriptor.number, name, UInt64(O_RDWR | O_CREAT | O_EXCL), mode)
    guard number >= 0 else { throw .last("create", full) }
    probe?.succeeded(.create, path: full, bytes: UnsafeRawBufferPointer(start: nil, count: 0))
    return try ImageFile(OwnedDescriptor(number), path: full, isWritable: true, probe: probe)
  }

  /// Gives a file another name, replacing what had it.
  package func rename(_ name: String, to newName: String) throws(IOError) {
    let full = self.name(of: name)
    let operation = IOOperation.rename(to: self.name(of: newName))
    try refuse(operation, "rename", full)
    guard renameat(descriptor.number, name, descriptor.number, newName) == 0 else {
      throw .last("rename", full)
    }
    probe?.succeeded(operation, path: full, bytes: UnsafeRawBufferPointer(start: nil, count: 0))
  }

  /// Gives a file a name that nothing has.
  ///
  /// - Throws: EEXIST where something has it, with nothing changed.
  package func rename(_ name: String, toUnused newName: String) throws(IOError) {
    let full = self.name(of: name)
    let operation = IOOperation.rename(to: self.name(of: newName))
    try refuse(operation, "rename", full)
    guard clinux_rename_unused(descriptor.number, name, newName) == 0 else {
      // A file system that cannot promise it (man 2 renameat2).
      guard errno == EINVAL else { throw .last("rename", full) }
      guard !contains(newName) else { throw IOError("rename", path: full, code: EEXIST) }
      return try rename(name, to: newName)
    }
    probe?.succeeded(operation, path: full, bytes: UnsafeRawBufferPointer(start: nil, count: 0))
  }

  package func unlink(_ name: String) throws(IOError) {
    let full = self.name(of: name)
    try refuse(.unlink, "unlink", full)
    guard unlinkat(descriptor.number, name, 0) == 0 else { throw .last("unlink", full) }
    probe?.succeeded(.unlink, path: full, bytes: UnsafeRawBufferPointer(start: nil, count: 0))
  }

  /// Makes the names in this folder durable.
  package func sync() throws(IOError) {
    probe?.syncStarts(path: path)
    try refuse(.syncFolder, "fsync", path)
    guard fsync(descriptor.number) == 0 else { throw .last("fsync", path) }
    probe?.succeeded(.syncFolder, path: path, bytes: UnsafeRawBufferPointer(start: nil, count: 0))
  }

  package func contains(_ name: String) -> Bool {
    faccessat(descriptor.number, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0
  }

  /// The names of what is in this folder, in no order.
  package func names() throws(IOError) -> [String] {
    // A descriptor of its own: reading a folder moves the place where the next read goes on.
    let number = clinux_open_beneath(
      descriptor.number, ".", UInt64(O_RDONLY | O_DIRECTORY), 0)
    guard number >= 0 else { throw .last("open", path) }
    guard let stream = fdopendir(number) else {
      close(number)
      throw .last("opendir", path)
    }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = Glibc.readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  /// A small file as a whole.
  ///
  /// - Throws: EOVERFLOW when it has more than `limit` bytes.
  package func bytes(of name: String, limit: Int) throws(IOError) -> [UInt8] {
    let file = try open(name, writable: false)
    let size = try file.size()
    guard size <= UInt64(limit) else { throw IOError("read", path: file.path, code: EOVERFLOW) }
    let buffer = AlignedBuffer(count: Int(size))
    let count = try file.read(into: buffer.region, at: 0)
    return buffer.region.slice(0, count).bytes
  }

  /// Of the file system that the folder itself lies on.
  package func space() throws(IOError) -> FilesystemSpace {
    try FilesystemSpace(around: descriptor.number, path)
  }

  /// A small file that is to be replaced as a whole.
  package struct Replacement: Sendable {
    package let name: String
    package let bytes: [UInt8]

    package init(of name: String, with bytes: [UInt8]) {
      self.name = name
      self.bytes = bytes
    }
  }

  /// Replaces a small file as a whole: temporary file, fsync, rename, fsync of the folder.
  package func replace(_ name: String, with bytes: [UInt8], mode: UInt32 = 0o640) throws(IOError) {
    try prepare(name, with: bytes, mode: mode)
    try commit(name)
  }

  /// The first half of ``replace(_:with:mode:)``: what is to be the file is durable beside it.
  package func prepare(_ name: String, with bytes: [UInt8], mode: UInt32 = 0o640) throws(IOError) {
    let temporary = "\(name).tmp"
    try removeIfThere(temporary)
    let file = try create(temporary, mode: mode)
    try file.write(AlignedBuffer(bytes).region, at: 0)
    try file.sync()
  }

  /// The second half: it is the file, durably. After an error it may be either.
  package func commit(_ name: String) throws(IOError) {
    try publish(name)
    try sync()
  }

  /// Of the second half the rename alone: what comes after it may be either after a crash until the
  /// folder is synced. Names in one folder become durable in the order in which they were changed.
  package func publish(_ name: String) throws(IOError) {
    try rename("\(name).tmp", to: name)
  }

  package func removeIfThere(_ name: String) throws(IOError) {
    if contains(name) { try unlink(name) }
  }

  /// Which file has a name, whatever kind of one it is, found without following any link. It is not opened.
  package func place(of name: String) throws(IOError) -> PathHandle {
    // O_PATH (fcntl.h), which Swift does not import.
    let number = clinux_open_beneath(descriptor.number, name, 0o10_000_000, 0)
    guard number >= 0 else { throw .last("open", self.name(of: name)) }
    return PathHandle(OwnedDescriptor(number))
  }

  /// Bytes of the disk that a file takes; 0 of one that is not there any more.
  package func diskBytes(of name: String) throws(IOError) -> UInt64 {
    do throws(IOError) { return try open(name, writable: false).allocatedBytes() } catch {
      guard error.code == ENOENT else { throw error }
      return 0
    }
  }

  package func withDescriptor<Result>(_ body: (Int32) -> Result) -> Result {
    body(descriptor.number)
  }

  private func refuse(
    _ operation: IOOperation, _ call: StaticString, _ path: String
  ) throws(IOError) {
    guard let fault = probe?.fault(for: operation, path: path) else { return }
    switch fault {
    case .error(let code): throw IOError(call, path: path, code: code)
    case .short: break
    case .stall(let wait): wait()
    }
  }
}
