internal import ArgumentParser
internal import PloopDevice
internal import PloopHTTP
internal import PloopJSON

struct ImageMapCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "map", abstract: "Show where the content of a disk lies.")

  @OptionGroup var arguments: ChainArguments
  @Flag(help: "For machines: the members of 'qemu-img map --output=json', and level and file.")
  var json = false

  func run() throws {
    let chain = try arguments.chain()
    let map = try reporting(on: chain.files) { () throws(DeviceError) in
      try ImageMap(chain.sources())
    }
    if json {
      // Printed as it is found: the map of a large disk has many runs.
      var isFirst = true
      map.forEachRun { run in
        print(isFirst ? "[" : ",", terminator: isFirst ? "" : "\n")
        isFirst = false
        print(String(decoding: json(run, of: chain).encoded, as: UTF8.self), terminator: "")
      }
      print("]")
    } else {
      print(row("Start", "Length", "Content", "Offset"), "File")
      map.forEachRun { run in
        print(
          row(
            hex(run.start), hex(run.length), "\(run.kind)", run.place.map { hex($0.offset) } ?? ""),
          run.place.map { chain.files[$0.level] } ?? "")
      }
    }
  }

  private func row(_ cells: String...) -> String {
    cells.map { $0 + String(repeating: " ", count: max(0, 16 - $0.count)) }.joined()
  }

  private func hex(_ number: UInt64) -> String { "0x" + String(number, radix: 16) }

  private func json(_ run: ImageMap.Run, of chain: NamedChain) -> JSON {
    .members([
      "start": .count(run.start), "length": .count(run.length),
      // QEMU counts from the top, and gives what is in no image to the top.
      "depth": .integer(Int64(run.place.map { chain.files.count - 1 - $0.level } ?? 0)),
      "present": .bool(run.kind != .hole), "zero": .bool(run.kind != .data),
      "data": .bool(run.kind == .data), "offset": run.place.map { .count($0.offset) },
      "level": run.place.map { .integer(Int64($0.level)) },
      "file": run.place.map { .string(chain.files[$0.level]) },
    ])
  }
}
