import BenchKit
import PloopIO
import TestSupport
import Testing

/// A null server in this process, on a socket of its own.
private final class Ceiling {
  let address: NBDAddress
  private let server: NullServer
  private let thread: Thread
  private let folder: TemporaryFolder

  init(stamp: UInt8 = 1) throws {
    folder = try TemporaryFolder()
    let path = "\(folder.path)/s"
    let server = try NullServer(path: path, sizeBytes: 256 << 20, stamp: stamp)
    self.server = server
    thread = try Thread(name: "null") { server.serve() }
    address = NBDAddress(door: .unix(path), export: "")
  }

  deinit {
    server.stop()
    thread.join()
  }

  func run(_ change: (inout LoadJob) -> Void) throws -> LoadResult {
    var job = LoadJob()
    (job.spanBytes, job.limit) = (64 << 20, .operations(500))
    change(&job)
    return try #require(try Load.run([(address, job)]).first)
  }
}

@Suite("The load")
struct LoadTests {
  @Test("every kind of work is done to its last operation", arguments: LoadJob.Kind.allCases)
  func kinds(kind: LoadJob.Kind) throws {
    let ceiling = try Ceiling()
    for (block, depth, connections) in [
      (4096, 1, 1), (512, 16, 1), (65536, 16, 3), (3 << 20, 3, 1),
    ] {
      let result = try ceiling.run {
        ($0.kind, $0.blockBytes, $0.depth, $0.connections) = (kind, block, depth, connections)
        $0.accepted = 1...1
        if kind == .stall { $0.limit = .seconds(0.05) }
        if block > 65536, kind != .stall { $0.limit = .operations(40) }
      }
      #expect(result.operations == (kind == .stall ? 0 : block > 65536 ? 40 : 500))
      #expect(kind == .stall || result.p50 > 0)
    }
  }

  @Test("a pass touches each position once, scattered or in order")
  func pass() throws {
    let ceiling = try Ceiling()
    for order in [LoadJob.Order.sequential, .scatter] {
      for connections in [1, 4] {
        let result = try ceiling.run {
          ($0.kind, $0.order, $0.limit, $0.depth) = (.write, order, .pass, 8)
          ($0.strideBytes, $0.connections) = (1 << 20, connections)
        }
        #expect(result.operations == 64)
        #expect(result.writtenUnits == 64)
      }
    }
  }

  @Test("a server that returns what nobody wrote is found out")
  func wrongContent() throws {
    let ceiling = try Ceiling(stamp: 1)
    #expect(throws: BenchFailure.self) { try ceiling.run { $0.accepted = 2...2 } }
    let zeroes = try Ceiling(stamp: 0)
    #expect(throws: BenchFailure.self) { try zeroes.run { $0.accepted = 1...9 } }
    #expect(try zeroes.run { $0.accepted = 0...0 }.readUnits == ["0": 500])
  }

  @Test("what cannot be done is said before anything is sent")
  func refusals() throws {
    let ceiling = try Ceiling()
    #expect(throws: BenchFailure.self) { try ceiling.run { $0.blockBytes = 12 } }
    #expect(throws: BenchFailure.self) { try ceiling.run { $0.depth = 0 } }
    #expect(throws: BenchFailure.self) { try ceiling.run { $0.limit = .pass } }
    #expect(throws: BenchFailure.self) { try ceiling.run { $0.spanBytes = 1 << 40 } }
  }

  @Test("addresses are those of NBD's URIs")
  func addresses() throws {
    for uri in ["nbd+unix:///a?socket=/x/y", "nbd+unix:///?socket=/x", "nbd://localhost:1234/a"] {
      #expect(try NBDAddress(uri: uri).uri == uri)
    }
    #expect(try NBDAddress(uri: "nbd://host").uri == "nbd://host:10809/")
    #expect(throws: BenchFailure.self) { try NBDAddress(uri: "http://host/") }
    #expect(throws: BenchFailure.self) { try NBDAddress(uri: "nbd+unix:///a") }
  }
}
