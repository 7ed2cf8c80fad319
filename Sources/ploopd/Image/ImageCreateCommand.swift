internal import ArgumentParser
internal import PloopDevice
internal import PloopFormat
internal import PloopHTTP
internal import PloopJSON
internal import PloopTerminal

struct ImageCreateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Make a new, empty image.")

  @Argument(help: "The file to make; it must not exist.") var file: String
  @Option(help: "Size of the disk, e.g. 10G; a whole number of clusters.") var size: ByteSize
  @Option(help: "Size of a cluster: a power of two from 4K to 64M.")
  var clusterSize = ByteSize(bytes: 1 << 20)
  @Option(help: "Version of the format, 1 or 2.") var version = 2
  @Flag(help: "Say what was made as JSON.") var json = false

  func validate() throws { _ = try geometry() }

  func run() throws {
    let geometry = try geometry()
    let path = ImagePath(file)
    try reporting(on: [file]) { () throws(DeviceError) in
      try ImageCreator.create(in: path.folder(), name: path.name, geometry: geometry)
    }
    if json {
      printJSON(
        .members([
          "file": .string(file), "version": .integer(Int64(geometry.version.rawValue)),
          "size_bytes": .count(geometry.sizeBytes), "cluster_bytes": .count(geometry.clusterBytes),
          "clusters": .count(geometry.clusterCount), "file_bytes": .count(geometry.headerBytes),
        ]))
    } else {
      print(
        "\(file): made, version \(geometry.version.rawValue), a disk of "
          + "\(ByteSize(bytes: geometry.sizeBytes).exact) in clusters of \(clusterSize.rounded)")
    }
  }

  private func geometry() throws(ValidationError) -> Geometry {
    guard let version = ImageVersion(rawValue: version) else {
      throw ValidationError("The version is 1 or 2.")
    }
    do throws(NewDiskFault) {
      return try Geometry(
        newDisk: version, clusterBytes: clusterSize.bytes, sizeBytes: size.bytes)
    } catch {
      switch error {
      case .clusterSize: throw ValidationError("A cluster is a power of two from 4K to 64M.")
      case .empty: throw ValidationError("A disk has at least one cluster.")
      case .tooLarge(let limit):
        throw ValidationError(
          "Version \(version.rawValue) with clusters of \(clusterSize.rounded) ends at \(limit) bytes."
        )
      case .misaligned(let nearest):
        throw ValidationError(
          "\(size.bytes) bytes are no whole number of clusters of \(clusterSize.rounded); nearest: "
            + nearest.map(String.init).joined(separator: " or ") + ".")
      }
    }
  }
}
