internal import ArgumentParser
internal import BenchKit

/// `bench null-server SOCKET`: the ceiling, until it is interrupted.
struct NullServerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "null-server", abstract: "Serves a disk that does not exist, until interrupted.")

  @Argument(help: "The Unix socket to listen at.")
  var socket: String

  @Option(help: "Bytes of the disk.")
  var size = Size(bytes: 4 << 30)

  @Option(help: "Whose content reads return; 0 for zeroes.")
  var stamp: UInt8 = 1

  func run() throws {
    try NullServer(path: socket, sizeBytes: UInt64(size.bytes), stamp: stamp).serve()
  }
}
