internal import ArgumentParser
internal import PloopControl
internal import PloopDevice
internal import PloopFormat
internal import PloopHTTP
internal import PloopJSON
internal import PloopTerminal

struct ImageInfoCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "info", abstract: "Show what an image is and how its file is filled.")

  @OptionGroup var arguments: ChainArguments
  @Flag(help: "For machines.") var json = false

  func run() throws {
    let chain = try arguments.chain()
    let found = try reporting(on: chain.files) { () throws(DeviceError) in
      let found = try ChainCheck(chain.sources())
      for (number, level) in found.levels.enumerated() {
        guard case .unusable(let error) = level else { continue }
        throw DeviceError(error, level: number, path: chain.files[number])
      }
      return found
    }
    if json {
      printJSON(
        .members([
          "levels": .array(
            zip(chain.files, found.levels).enumerated().map { number, level in
              self.json(level.1, number: number, file: level.0)
            })
        ]))
    } else {
      for (number, level) in found.levels.enumerated() {
        if number > 0 { print() }
        print("image: \(chain.files[number])")
        lines(level).forEach { print("\($0): \($1)") }
      }
    }
    try reporting(on: chain.files) { () throws(DeviceError) in
      guard let mismatch = found.mismatch else { return }
      throw DeviceError(mismatch.error, level: mismatch.level, path: chain.files[mismatch.level])
    }
  }

  // MARK: For people

  private func lines(_ level: ChainCheck.Level) -> KeyValuePairs<String, String> {
    switch level {
    case .unusable(let error): ["error": error.detail]
    case .raw(let fileBytes, let diskBytes):
      [
        "format": "raw", "file": ByteSize(bytes: fileBytes).exact,
        "space on disk": ByteSize(bytes: diskBytes).exact,
      ]
    case .image(let check):
      [
        "format": "ploop, version \(check.header.version.rawValue)",
        "disk": "\(ByteSize(bytes: check.geometry.sizeBytes).exact), "
          + "\(check.geometry.clusterCount) clusters",
        "cluster": ByteSize(bytes: check.geometry.clusterBytes).exact,
        "file": "\(ByteSize(bytes: check.fileBytes).exact), "
          + "\(check.geometry.headerClusters) clusters of header and index",
        "space on disk": ByteSize(bytes: check.diskBytes).exact,
        "state": check.isUnclean ? "in use, or not closed" : "closed",
        "flags": check.flagNames.isEmpty ? "none" : check.flagNames.joined(separator: ", "),
        "format extension": check.formatExtension.sentence,
        "mapped": "\(check.mappedClusters) clusters, "
          + percent(check.mappedClusters, of: check.geometry.clusterCount),
        "fragmentation": percent(check.scatteredClusters, of: check.mappedClusters),
      ]
    }
  }

  private func percent(_ part: UInt64, of whole: UInt64) -> String {
    let tenths = whole == 0 ? 0 : part * 1000 / whole
    return "\(tenths / 10).\(tenths % 10) %"
  }

  // MARK: For machines

  private func json(_ level: ChainCheck.Level, number: Int, file: String) -> JSON {
    switch level {
    case .unusable(let error): .members(["file": .string(file), "error": .string(error.detail)])
    case .raw(let fileBytes, let diskBytes):
      .members([
        "level": .integer(Int64(number)), "file": .string(file), "format": .string("raw"),
        "file_bytes": .count(fileBytes), "disk_bytes": .count(diskBytes),
      ])
    case .image(let check):
      .members([
        "level": .integer(Int64(number)), "file": .string(file), "format": .string("ploop"),
        "version": .integer(Int64(check.header.version.rawValue)),
        "size_bytes": .count(check.geometry.sizeBytes),
        "cluster_bytes": .count(check.geometry.clusterBytes),
        "clusters": .count(check.geometry.clusterCount),
        "header_clusters": .count(check.geometry.headerClusters),
        "mapped_clusters": .count(check.mappedClusters),
        "scattered_clusters": .count(check.scatteredClusters),
        "file_bytes": .count(check.fileBytes), "disk_bytes": .count(check.diskBytes),
        "in_use": .bool(check.isUnclean),
        "flags": .array(check.flagNames.map { .string($0) }),
        "extension": .string(check.formatExtension.name),
        "bitmaps": .array(
          check.formatExtension.bitmaps.map {
            .members(["id": .string($0.id), "granularity_bytes": .count($0.granularityBytes)])
          }),
      ])
    }
  }
}

extension ImageCheck {
  fileprivate var flagNames: [String] {
    var names: [String] = []
    if header.flags & Header.Flags.empty != 0 { names.append("empty") }
    if header.flags & Header.Flags.converting != 0 { names.append("converting") }
    let others = header.flags & ~(Header.Flags.empty | Header.Flags.converting)
    if others != 0 { names.append("0x" + String(others, radix: 16)) }
    return names
  }
}

extension ImageCheck.ExtensionState {
  var bitmaps: [FormatExtension.DirtyBitmap] {
    if case .good(let found) = self { found.bitmaps } else { [] }
  }

  fileprivate var sentence: String {
    switch self {
    case .none: "none"
    case .stale: "stale: the image was written to since"
    case .damaged(let fault): "damaged: \(fault.detail)"
    case .good(let found):
      found.bitmaps.map {
        "dirty bitmap \($0.id), a bit for \(ByteSize(bytes: $0.granularityBytes).rounded)"
      }.joined(separator: "; ")
    }
  }
}
