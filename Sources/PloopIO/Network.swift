internal import Glibc

/// Addresses that begin with the same bits, as `10.0.0.0/8` or `2001:db8::/32`.
package struct Network: Sendable, Equatable {
  /// As it is written.
  package let text: String
  private let address: [UInt8]
  private let bitCount: Int

  /// - Returns: nil for what is neither an address nor one with a number of bits; bits behind those
  ///   have to be 0, so that nobody means another network than he writes.
  package init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let address = Network.bytes(of: String(parts[0])) else {
      return nil
    }
    var count = address.count * 8
    if parts.count == 2 {
      guard (1...3).contains(parts[1].utf8.count),
        parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
        let number = Int(parts[1]), number <= count
      else { return nil }
      count = number
    }
    self.text = text
    self.address = address
    bitCount = count
    guard (count..<address.count * 8).allSatisfy({ !Network.bit($0, of: address) }) else {
      return nil
    }
  }

  /// - Parameter host: an address in numbers; an IPv4 one may be written as IPv6 (`::ffff:10.0.0.1`).
  package func contains(_ host: String) -> Bool {
    guard let other = Network.bytes(of: host), other.count == address.count else { return false }
    return (0..<bitCount).allSatisfy { Network.bit($0, of: other) == Network.bit($0, of: address) }
  }

  private static func bit(_ index: Int, of bytes: [UInt8]) -> Bool {
    bytes[index / 8] & (0x80 >> UInt8(index % 8)) != 0
  }

  /// Who may be behind an address: of IPv6 a client has the last 64 bits to himself, and of the loopback network
  /// whoever is here has every address.
  package static func party(of host: String) -> String {
    guard let bytes = bytes(of: host) else { return host }
    if bytes.count == 16 {
      return bytes.prefix(8).map { String($0, radix: 16) }.joined(separator: ":")
    }
    return bytes[0] == 127 ? "127" : bytes.map { String($0) }.joined(separator: ".")
  }

  /// The 4 or 16 bytes of an address in numbers.
  static func bytes(of host: String) -> [UInt8]? {
    var short = in_addr()
    if inet_pton(AF_INET, host, &short) == 1 { return withUnsafeBytes(of: &short) { Array($0) } }
    var long = in6_addr()
    // Of a link-local address the interface stands behind a percent sign.
    guard inet_pton(AF_INET6, String(host.prefix { $0 != "%" }), &long) == 1 else { return nil }
    let bytes = withUnsafeBytes(of: &long) { Array($0) }
    let mapped: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]
    return bytes.starts(with: mapped) ? Array(bytes[12...]) : bytes
  }
}
