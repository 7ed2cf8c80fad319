/// What one load does to an export.
package struct LoadJob: Sendable {
  package enum Kind: String, CaseIterable, Sendable, Codable {
    case read, write, mix, zeroes, trim
    /// Asks for data and never takes it.
    case stall
  }

  package enum Order: String, CaseIterable, Sendable, Codable {
    case random, sequential
    /// Every position once, far apart from one to the next.
    case scatter
  }

  package enum Limit: Sendable {
    case seconds(Double)
    /// Of all connections together.
    case operations(Int)
    /// Each position once, with `sequential` and `scatter`.
    case pass
  }

  package var kind = Kind.read
  package var order = Order.random
  /// Bytes of a request, a multiple of 8.
  package var blockBytes = 4096
  /// Bytes from one position to the next; `nil` for a block.
  package var strideBytes: Int?
  package var depth = 1
  package var connections = 1
  package var readPercent = 70
  package var offset: UInt64 = 0
  package var spanBytes: UInt64 = 1 << 30
  package var seed: UInt64 = 1
  package var limit = Limit.seconds(1)
  /// What writes leave (``Content``), and what reads may find.
  package var stamp: UInt8 = 1
  package var accepted: ClosedRange<UInt8> = 0...255
  /// Every word of every read is looked at, instead of the ends of each unit.
  package var checksEntirely = false
  package var structuredReplies = false
  /// Its threads give way to others: a neighbour is to disturb by what it asks of the server, not by
  /// what making its requests costs.
  package var givesWay = false

  package init() {}

  var positions: Int { Int(spanBytes / UInt64(strideBytes ?? blockBytes)) }

  package func validate() throws(BenchFailure) {
    guard blockBytes > 0, blockBytes % 8 == 0, blockBytes <= 64 << 20 else {
      throw BenchFailure("a block is a multiple of 8 bytes, at most 64 MiB")
    }
    guard (strideBytes ?? blockBytes) >= blockBytes, offset % 8 == 0 else {
      throw BenchFailure("a stride is at least a block, and the offset a multiple of 8")
    }
    guard (1...1024).contains(depth), (1...64).contains(connections) else {
      throw BenchFailure("depth is 1 to 1024, connections 1 to 64")
    }
    guard positions >= connections * (kind == .mix ? 2 * depth : 1) else {
      throw BenchFailure("the span has too few positions")
    }
    if case .pass = limit, order == .random {
      throw BenchFailure("a pass is sequential or scattered")
    }
  }
}

/// Where one connection's requests go, one after the other.
struct RequestPlan {
  private let job: LoadJob
  private let first: Int
  private let count: Int
  private let multiplier: UInt64
  private var generator: UInt64
  private var done = 0
  private let limit: Int

  init(_ job: LoadJob, connection: Int) {
    self.job = job
    let share = job.positions / job.connections
    switch job.order {
    // Connections of a mix stay apart: one's reads must not meet another's writes.
    case .random:
      (first, count) = job.kind == .mix ? (connection * share, share) : (0, job.positions)
    case .sequential, .scatter: (first, count) = (connection * share, share)
    }
    generator = job.seed &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(connection) &* 0xD1B5_4A32_D192_ED03
    multiplier = RequestPlan.scattering(count)
    limit =
      switch job.limit {
      case .seconds: .max
      case .operations(let all):
        all / job.connections + (connection < all % job.connections ? 1 : 0)
      case .pass: count
      }
  }

  /// A factor without a common divisor: its multiples visit each of `count` positions once.
  private static func scattering(_ count: Int) -> UInt64 {
    var factor = max(1, UInt64(Double(count) * 0.618)) | 1
    while greatestCommonDivisor(factor, UInt64(count)) != 1 { factor += 1 }
    return factor
  }

  private static func greatestCommonDivisor(_ one: UInt64, _ other: UInt64) -> UInt64 {
    var (a, b) = (one, other)
    while b != 0 { (a, b) = (b, a % b) }
    return a
  }

  var isDone: Bool { done >= limit }

  private mutating func random() -> UInt64 {
    generator &+= 0x9E37_79B9_7F4A_7C15
    var z = generator
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// The next request's offset on the disk, and whether it reads (of a mix).
  mutating func next() -> (offset: UInt64, reads: Bool) {
    let position: Int
    var reads = job.kind == .read || job.kind == .stall
    switch job.order {
    case .random:
      // The high half of a 64-bit product spreads evenly without a division.
      position = first &+ Int(random().multipliedFullWidth(by: UInt64(count)).high)
    case .sequential: position = first &+ done % count
    case .scatter: position = first &+ Int(UInt64(done % count) &* multiplier % UInt64(count))
    }
    if job.kind == .mix { reads = Int(random() % 100) < job.readPercent }
    done &+= 1
    let stride = UInt64(job.strideBytes ?? job.blockBytes)
    return (job.offset &+ UInt64(position) &* stride, reads)
  }

  /// The request that ``next()`` gave last is not made.
  mutating func takeBack() { done &-= 1 }
}
