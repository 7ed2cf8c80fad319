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

  /// How many nodes come before one that is to have a device; nil where that one is not to have it at all.
  ///
  /// - Parameter loads: how many devices each node has; one that is full comes last, and is not left out: better
  ///   served by it than by nobody is for it to decide.
  static func turn(
    of node: FleetNode, for device: String, wanting wanted: [String: String],
    among nodes: some Sequence<FleetNode>, loads: [String: Int]
  ) -> Int? {
    func mayHaveIt(_ node: FleetNode) -> Bool { node.capacity > 0 && suits(node, wanted) }
    func isFull(_ node: FleetNode) -> Bool { loads[node.name, default: 0] >= node.capacity }
    guard mayHaveIt(node) else { return nil }
    let own = (isFull: isFull(node), weight: weight(of: node, for: device))
    return nodes.count { other in
      guard other.name != node.name, mayHaveIt(other) else { return false }
      guard isFull(other) == own.isFull else { return own.isFull }
      let weight = weight(of: other, for: device)
      return weight != own.weight ? weight > own.weight : other.name < node.name
    }
  }

  /// Of many devices each node has the highest for its share.
  private static func weight(of node: FleetNode, for device: String) -> Double {
    let number = hash(node.name, device)
    // From 0 on, and below 1; never one of both.
    let part = (Double(number >> 11) + 0.5) / Double(1 << 53)
    return -Double(node.capacity) / log(part)
  }

  /// FNV-1a, and what makes of it a number whose bits are all alike (the end of SplitMix64).
  private static func hash(_ one: String, _ other: String) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    func add(_ byte: UInt8) { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
    one.utf8.forEach(add)
    add(0)
    other.utf8.forEach(add)
    hash = (hash ^ (hash >> 30)) &* 0xbf58_476d_1ce4_e5b9
    hash = (hash ^ (hash >> 27)) &* 0x94d0_49bb_1331_11eb
    return hash ^ (hash >> 31)
  }
}
