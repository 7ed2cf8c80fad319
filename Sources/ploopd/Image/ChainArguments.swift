internal import ArgumentParser
internal import PloopDevice
internal import PloopFormat

/// One image, several that are the chain of one disk, or a descriptor that names them.
struct ChainArguments: ParsableArguments {
  private static let descriptorEnding = ".xml"

  @Argument(
    help:
      "The image; of a chain all images, oldest first, or its DiskDescriptor.xml.")
  var files: [String]
  @Option(help: "A raw file below the first image.") var rawBase: String?
  @Option(help: "With a descriptor: a snapshot of it instead of the disk as it is now.")
  var at: String?

  /// The format of a file is never guessed: its name says that it is a descriptor.
  private var descriptor: String? {
    files.first { $0.hasSuffix(ChainArguments.descriptorEnding) }
  }

  func validate() throws {
    guard descriptor != nil else {
      guard at == nil else { throw ValidationError("--at goes with a DiskDescriptor.xml.") }
      return
    }
    guard files.count == 1, rawBase == nil else {
      throw ValidationError("A descriptor names all images of a chain: name nothing beside it.")
    }
    if let at, GUID(lenient: at) == nil { throw ValidationError("--at: \(at) is no GUID.") }
  }

  /// - Throws: after it was said what is wrong with the descriptor.
  func chain() throws(ExitCode) -> NamedChain {
    guard let descriptor else {
      return NamedChain(files: (rawBase.map { [$0] } ?? []) + files, isBaseRaw: rawBase != nil)
    }
    return try reporting(on: [descriptor]) { () throws(DeviceError) in
      let path = ImagePath(descriptor).resolved
      let found = try DescriptorFile(in: path.folder(), name: path.name).read()
      do throws(DescriptorError) {
        let shots = try found.chain(to: at.flatMap { GUID(lenient: $0) } ?? found.topGUID)
        return NamedChain(
          files: shots.map { $0.file.hasPrefix("/") ? $0.file : "\(path.folderPath)/\($0.file)" },
          isBaseRaw: found.isBaseRaw)
      } catch { throw DeviceError(error, path: descriptor) }
    }
  }
}

/// The images of one disk, by names that lead to them.
struct NamedChain {
  /// Oldest first.
  let files: [String]
  let isBaseRaw: Bool

  /// Opens every file, for reading if nothing else is said. Locks that are taken on them go with the result.
  func sources(writable: Bool = false) throws(DeviceError) -> [DeltaSource] {
    var sources: [DeltaSource] = []
    for (level, file) in files.enumerated() {
      sources.append(
        try ImagePath(file).source(isRaw: level == 0 && isBaseRaw, writable: writable))
    }
    return sources
  }
}
