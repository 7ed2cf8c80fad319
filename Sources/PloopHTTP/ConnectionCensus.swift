internal import PloopIO

/// How many connections there are, in all and from each address and user, and which of them are too many:
/// those are told so and end, while the ones that came before go on.
struct ConnectionCensus {
  /// Where a connection is counted.
  enum Source: Hashable {
    case address(String)
    /// Of the Unix socket, somebody who may do nothing here.
    case stranger(UInt32)
    /// Of the Unix socket, somebody who may: nobody counts.
    case known
  }

  private let limits: HTTPLimits
  private var total: UInt32 = 0
  private var counts: [Source: UInt32] = [:]

  init(_ limits: HTTPLimits) { self.limits = limits }

  /// - Returns: whether it is one too many.
  mutating func enter(_ source: Source) -> Bool {
    total += 1
    guard source != .known else { return total > limits.connections }
    let count = counts[source, default: 0] + 1
    counts[source] = count
    let most =
      if case .address = source { limits.connectionsPerAddress } else {
        limits.connectionsOfStranger
      }
    return total > limits.connections || count > most
  }

  mutating func leave(_ source: Source) {
    if total > 0 { total -= 1 }
    guard let count = counts[source] else { return }
    counts[source] = count > 1 ? count - 1 : nil
  }
}
