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
  /// Of those whom nobody knows yet, and of the others: neither takes the other's places.
  private var strangers: UInt32 = 0
  private var known: UInt32 = 0
  private var counts: [Source: UInt32] = [:]

  init(_ limits: HTTPLimits) { self.limits = limits }

  /// - Returns: whether it is one too many.
  mutating func enter(_ source: Source) -> Bool {
    guard source != .known else {
      known += 1
      return known > limits.connections
    }
    strangers += 1
    let count = counts[source, default: 0] + 1
    counts[source] = count
    let most =
      if case .address = source { limits.connectionsPerAddress } else {
        limits.connectionsOfStranger
      }
    return strangers > limits.connections || count > most
  }

  mutating func leave(_ source: Source) {
    guard source != .known else {
      known -= min(known, 1)
      return
    }
    guard let count = counts[source] else { return }
    strangers -= min(strangers, 1)
    counts[source] = count > 1 ? count - 1 : nil
  }
}
