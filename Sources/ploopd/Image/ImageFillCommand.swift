internal import ArgumentParser
internal import PloopDevice
internal import PloopHTTP
internal import PloopJSON
internal import PloopTerminal

struct ImageFillCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fill", abstract: "Make a file free of holes, for tools that dislike them.",
    discussion: """
      Zeroes are written where the file has holes; the content does not change. May be interrupted
      at any time and run again.
      """)

  @Argument(help: "The image.") var file: String
  @Flag(help: "Show progress even where stderr is no terminal; with --json, as JSON lines.")
  var progress = false
  @Flag(help: "For machines.") var json = false

  func run() throws {
    var bar = ProgressBar(
      isForced: progress, style: json ? .lines : .bar, title: ImagePath(file).name)
    let filled = try reporting(on: [file]) { () throws(DeviceError) in
      defer { bar.end() }
      return try ImageFill.run(ImagePath(file).source(writable: true)) {
        bar.show($0.filledBytes, of: $0.totalBytes)
      }
    }
    if json {
      printJSON(.members(["file": .string(file), "filled_bytes": .count(filled)]))
    } else {
      print("\(file): filled \(ByteSize(bytes: filled).exact) of holes")
    }
  }
}
