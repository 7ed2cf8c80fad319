internal import ArgumentParser
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// `ploopd image …`: looks at and makes images that no service has open.
struct ImageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "image", abstract: "Create and look at images, without a running service.",
    subcommands: [ImageCreate.self, ImageInfo.self, ImageCheckCommand.self])
}

/// A file as it was named on the command line.
struct ImagePath {
  let folder: ImageFolder
  let name: String

  init(_ path: String) throws {
    let slash = path.lastIndex(of: "/")
    let parent = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    folder = try ImageFolder(path: parent)
    name = slash.map { String(path[path.index(after: $0)...]) } ?? path
  }
}

/// A size with an optional unit: 512, 64K, 1M, 10G, 2T.
struct ByteSize: ExpressibleByArgument {
  let bytes: UInt64

  init(bytes: UInt64) { self.bytes = bytes }

  init?(argument: String) {
    let units: [Character: UInt64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]
    let unit = argument.last.flatMap { units[Character($0.uppercased())] }
    guard let number = UInt64(unit == nil ? argument : String(argument.dropLast())) else {
      return nil
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: unit ?? 1)
    guard !overflow else { return nil }
    self.bytes = bytes
  }
}

private struct ImageCreate: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Make a new, empty image.")

  @Argument(help: "The file to make; it must not exist.") var file: String
  @Option(help: "Size of the disk, e.g. 10G; a whole number of clusters.") var size: ByteSize
  @Option(help: "Size of a cluster: a power of two from 4K to 64M.")
  var clusterSize = ByteSize(bytes: 1 << 20)
  @Option(help: "Version of the format, 1 or 2.") var version = 2

  func run() throws {
    guard let version = ImageVersion(rawValue: version) else {
      throw ValidationError("the version is 1 or 2")
    }
    let cluster = clusterSize.bytes
    let shift = cluster.trailingZeroBitCount
    guard cluster.nonzeroBitCount == 1, Geometry.clusterShifts.contains(shift) else {
      throw ValidationError("a cluster is a power of two from 4K to 64M")
    }
    guard size.bytes > 0, size.bytes <= Geometry.sizeLimit(version: version, clusterShift: shift)
    else { throw ValidationError("the disk is empty, or too large for its cluster size") }
    guard size.bytes % cluster == 0 else {
      let below = size.bytes / cluster * cluster
      throw ValidationError(
        "\(size.bytes) is no whole number of clusters; the nearest sizes are \(below) and \(below + cluster)"
      )
    }
    let path = try ImagePath(file)
    try ImageCreator.create(
      in: path.folder, name: path.name,
      geometry: Geometry(version: version, clusterShift: shift, sizeBytes: size.bytes))
  }
}

private struct ImageInfo: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "info", abstract: "Show what an image's header says.")

  @Argument(help: "The image.") var file: String
  @Flag(help: "For machines.") var json = false

  func run() throws {
    let path = try ImagePath(file)
    let check = try ImageCheck(path.folder.open(path.name, writable: false))
    let facts: [(String, String)] = [
      ("version", "\(check.header.version.rawValue)"), ("size", "\(check.geometry.sizeBytes)"),
      ("cluster_size", "\(check.geometry.clusterBytes)"),
      ("clusters", "\(check.geometry.clusterCount)"),
      ("mapped_clusters", "\(check.mappedClusters)"), ("file_bytes", "\(check.fileBytes)"),
      ("disk_bytes", "\(check.diskBytes)"), ("in_use", check.isUnclean ? "true" : "false"),
      ("extension", check.header.extensionSector != 0 ? "true" : "false"),
    ]
    if json {
      print("{\(facts.map { "\"\($0)\":\($1)" }.joined(separator: ","))}")
    } else {
      facts.forEach { print("\($0): \($1)") }
    }
  }
}

private struct ImageCheckCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check",
    abstract: "Check an image without changing it.",
    discussion: "Exit status: 0 clean, 1 no image, 2 corrupt, 3 only what safe repair mends.")

  @Argument(help: "The image.") var file: String
  @Flag(help: "For machines.") var json = false

  func run() throws {
    let path = try ImagePath(file)
    let check = try ImageCheck(path.folder.open(path.name, writable: false))
    if json {
      let faults = check.faults.map {
        "{\"code\":\"\($0.kind.rawValue)\",\"cluster\":\($0.cluster),\"entry\":\($0.entry)}"
      }
      print(
        "{\"unclean\":\(check.isUnclean),\"corrupt\":\(check.isCorrupt),\"errors\":[\(faults.joined(separator: ","))],\"mapped_clusters\":\(check.mappedClusters),\"unreferenced_clusters\":\(check.unreferencedClusters),\"tail_bytes\":\(check.tailBytes)}"
      )
    } else {
      if check.isUnclean { print("the image was not closed") }
      for fault in check.faults {
        print("\(fault.kind.rawValue): cluster \(fault.cluster), entry \(fault.entry)")
      }
      print(
        "\(check.mappedClusters) clusters mapped, \(check.unreferencedClusters) unreferenced, \(check.tailBytes) bytes of tail"
      )
    }
    if check.isCorrupt { throw ExitCode(2) }
    if check.needsRepair { throw ExitCode(3) }
  }
}
