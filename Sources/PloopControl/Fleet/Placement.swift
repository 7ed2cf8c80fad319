internal import Glibc

/// Which node is to have a device that nobody has. Every node comes to the same answer, without asking another one.
///
/// A node is chosen by a number that is made of its name and the device's, weighted by its capacity (rendezvous
/// hashing): a node that goes has its devices spread over all others, and nobody else's move.
enum Placement {
  /// Of a device's labels, those with this prefix are what a node's labels have to be.
  static let labelPrefix = "node."

  static func wanted(by labels: [String: String]) -> [String: String] {
    labels.reduce(into: [:]) { wanted, label in
      guard label.key.hasPrefix(labelPrefix) else { return }
      wanted[String(label.key.dropFirst(labelPrefix.count))] = label.value
    }
  }

  static func suits(_ node: FleetNode, _ wanted: [String: String]) -> Bool {
    wanted.allSatisfy { node.labels[$0.key] == $0.value }
  }

  /// Nodes that may have a device, the best first.
  ///
  /// - Parameter loads: how many devices each node has; one that is full comes last, and is not left out: better
  ///   served by it than by nobody is for it to decide.
  static func ranking(
    of device: String, wanting wanted: [String: String], among nodes: some Sequence<FleetNode>,
    loads: [String: Int]
  ) -> [FleetNode] {
    nodes.filter { $0.capacity > 0 && suits($0, wanted) }
      .map { node in
        (node, isFull: loads[node.name, default: 0] >= node.capacity, weight(of: node, for: device))
      }
      .sorted { one, other in
        if one.isFull != other.isFull { return other.isFull }
        return one.2 != other.2 ? one.2 > other.2 : one.0.name < other.0.name
      }
      .map(\.0)
  }

  /// Of many devices each node has the highest for its share.
  private static func weight(of node: FleetNode, for device: String) -> Double {
    let number = hash("\(node.name)\u{0}\(device)")
    // From 0 on, and below 1; never one of both.
    let part = (Double(number >> 11) + 0.5) / Double(1 << 53)
    return -Double(node.capacity) / log(part)
  }

  /// FNV-1a, and what makes of it a number whose bits are all alike (the end of SplitMix64).
  private static func hash(_ text: String) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
    hash = (hash ^ (hash >> 30)) &* 0xbf58_476d_1ce4_e5b9
    hash = (hash ^ (hash >> 27)) &* 0x94d0_49bb_1331_11eb
    return hash ^ (hash >> 31)
  }
}
