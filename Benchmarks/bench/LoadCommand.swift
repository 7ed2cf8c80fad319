internal import ArgumentParser
internal import BenchKit
internal import Foundation

/// `bench load URI`: one load, its result as JSON.
struct LoadCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "load", abstract: "Puts a load on an export and prints what was measured as JSON.",
    discussion: """
      Writes leave content that says where it belongs; reads accept that content, and zeroes. So
      fill what is to be read first: bench load URI --kind write --order sequential --block 1M --pass
      """)

  @Argument(help: "nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME")
  var uri: String

  @Option(help: "read, write, mix, zeroes, trim, or stall (asks and never takes the replies).")
  var kind = LoadJob.Kind.read

  @Option(help: "random, sequential, or scatter (each position once, far apart).")
  var order = LoadJob.Order.random

  @Option(help: "Bytes of a request, as 4096, 64K or 1M.")
  var block = Size(bytes: 4096)

  @Option(help: "Bytes from one position to the next; the block if not given.")
  var stride: Size?

  @Option(help: "Requests in flight on each connection.")
  var depth = 1

  @Option(help: "Connections, each with a thread.")
  var connections = 1

  @Option(help: "Reads among the requests of a mix, in percent.")
  var readPercent = 70

  @Option(help: "Where the working set begins.")
  var offset = Size(bytes: 0)

  @Option(help: "Bytes of the working set.")
  var span = Size(bytes: 1 << 30)

  @Option(help: "What random numbers begin with.")
  var seed: UInt64 = 1

  @Option(help: "How long to go on.")
  var seconds = 2.0

  @Option(help: "Requests of all connections together, instead of a time.")
  var operations: Int?

  @Flag(help: "Each position once, instead of a time.")
  var pass = false

  @Option(help: "Who writes, 1 to 255.")
  var stamp: UInt8 = 1

  @Option(help: "Whose content reads accept, as 1 or 0-2; 0 stands for zeroes.")
  var accept = StampRange(stamps: 0...255)

  @Flag(help: "Looks at every word that is read, not only at the ends of each 4 KiB.")
  var checkEntirely = false

  @Flag(help: "Asks for structured replies.")
  var structured = false

  @Option(help: "The server's process, to tell its processor time for each operation.")
  var serverPid: Int32?

  @Option(
    help: "A second load meanwhile: KIND,ORDER,BLOCK,DEPTH,OFFSET,SPAN, as stall,random,1M,64,0,1G."
  )
  var beside: [Neighbour] = []

  func run() throws {
    var job = LoadJob()
    job.kind = kind
    job.order = order
    job.blockBytes = block.bytes
    job.strideBytes = stride?.bytes
    job.depth = depth
    job.connections = connections
    job.readPercent = readPercent
    job.offset = UInt64(offset.bytes)
    job.spanBytes = UInt64(span.bytes)
    job.seed = seed
    job.limit = pass ? .pass : operations.map { .operations($0) } ?? .seconds(seconds)
    job.stamp = stamp
    job.accepted = accept.stamps
    job.checksEntirely = checkEntirely
    job.structuredReplies = structured
    let address = try NBDAddress(uri: uri)
    let jobs = [(address, job)] + beside.map { (address, $0.job(seconds: seconds)) }
    let results = try Load.run(jobs, server: serverPid)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    let data = results.count == 1 ? try encoder.encode(results[0]) : try encoder.encode(results)
    print(String(decoding: data, as: UTF8.self))
  }
}
