package import PloopFormat
package import PloopIO

/// An empty delta that is to become the top of a disk: marked as in use, durable, locked, and named
/// by nobody yet.
package struct NewTop: Sendable {
  package let source: DeltaSource
  /// Whether this service made it, and removes it if it does not become the top.
  private let isMade: Bool

  /// How a file is called that is to become a top, before it has its own name: as any file that is
  /// written ahead (``ImageFolder/prepare(_:with:mode:)``) it means nothing.
  private static func temporaryName(beside descriptor: DescriptorFile) -> String {
    "\(descriptor.name).top.tmp"
  }

  /// Writes a new file beside the descriptor, durably, under a name that means nothing.
  ///
  /// - Parameter geometry: of the disk as it is now.
  static func prepare(
    beside descriptor: DescriptorFile, geometry: Geometry
  ) throws(DeviceError) {
    try discard(beside: descriptor)
    var header = Header(new: geometry)
    header.inUse = Header.InUse.open
    try ImageCreator.write(
      in: descriptor.folder, name: temporaryName(beside: descriptor), header: header, geometry)
  }

  /// Removes what was prepared, if anything was.
  static func discard(beside descriptor: DescriptorFile) throws(DeviceError) {
    try converting { () throws(IOError) in
      try descriptor.folder.removeIfThere(temporaryName(beside: descriptor))
    }
  }

  /// Gives what was prepared its name. The folder is the caller's to sync.
  static func name(_ name: String, beside descriptor: DescriptorFile) throws(DeviceError) {
    try converting { () throws(IOError) in
      try descriptor.folder.rename(temporaryName(beside: descriptor), to: name)
    }
  }

  /// Takes the new file that was prepared and named, both durably.
  init(made name: String, in folder: ImageFolder) throws(DeviceError) {
    source = try NewTop.open(name, in: folder)
    isMade = true
  }

  /// Takes an image that is there: empty, closed, and of the disk's own geometry.
  ///
  /// - Throws: what is wrong with it, and not a byte of it is changed.
  package init(
    taking name: String, in folder: ImageFolder, geometry: Geometry
  ) throws(DeviceError) {
    source = try NewTop.open(name, in: folder)
    isMade = false
    do throws(DeviceError) {
      try NewTop.requireEmpty(source, geometry)
      // An index that is read here must not be one that a crash takes back (rule 0).
      try converting { () throws(IOError) in
        try source.file.truncate(to: geometry.headerBytes)
        try source.file.sync()
        // Nor may a descriptor name what a crash takes out of its folder.
        try folder.sync()
      }
      var header = Header(new: geometry)
      header.markOpen()
      try Device.write(header, to: source.file)
    } catch {
      ImageLock.release(source.file)
      throw error
    }
  }

  private static func open(
    _ name: String, in folder: ImageFolder
  ) throws(DeviceError) -> DeltaSource {
    let file = try converting { () throws(IOError) in try folder.open(name, writable: true) }
    do throws(LockError) {
      try ImageLock.acquire(file, for: .write)
    } catch { throw DeviceError(error) }
    return DeltaSource(file: file, folder: folder, name: name)
  }

  private static func requireEmpty(
    _ source: DeltaSource, _ wanted: Geometry
  ) throws(DeviceError) {
    let path = source.file.path
    let opener = ChainOpener(sources: [source], options: AttachOptions())
    let (geometry, levels) = try opener.readHeaders()
    func refuse(_ code: FormatError.Code, _ detail: String) -> DeviceError {
      DeviceError(FormatError(code, detail), level: 0, path: path)
    }
    guard geometry == wanted else {
      throw refuse(.geometryMismatch, "its header is not that of an empty delta of this disk")
    }
    guard !levels[0].isUnclean else {
      throw refuse(.unclean, "the image is marked as in use")
    }
    var scan = IndexScan(geometry, fileBytes: levels[0].fileBytes)
    func full(_ cluster: UInt64) -> DeviceError {
      refuse(.geometryMismatch, "it is not empty: its index names cluster \(cluster)")
    }
    try scan.run(source.file) { (cluster, _) throws(DeviceError) in
      throw full(cluster)
    } fault: { (fault) throws(DeviceError) in
      throw full(fault.cluster)
    }
  }

  /// It does not become the top after all.
  package func abandon() {
    if isMade {
      try? source.folder.unlink(source.name)
      try? source.folder.sync()
    } else if var header = try? Device.header(of: source.file) {
      header.inUse = Header.InUse.closed
      try? Device.write(header, to: source.file)
    }
    ImageLock.release(source.file)
  }
}
