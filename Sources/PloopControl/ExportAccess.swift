internal import PloopIO
internal import PloopNBD

/// Who may use an export, beyond what its listener asks of everybody.
package struct ExportAccess: Codable, Sendable, Equatable {
  private static let mostItems = 64
  private static let longestName = 1_024
  /// Of names of certificates (``ClientCertificate``) and of pre-shared keys.
  private static let kinds = ["dns", "uri", "mail", "cn", "psk"]

  /// Whether only by TLS; names are shown by nothing else.
  package var tls: Bool
  /// Names of certificates and of pre-shared keys with their kinds, as `dns:vm1.example` and `psk:vm1`, one of which the
  /// client has to have; nil for everybody.
  package var names: [String]?
  /// Networks (``Network``) that it has to come from, over TCP; nil for everywhere.
  package var addresses: [String]?

  package init(tls: Bool = false, names: [String]? = nil, addresses: [String]? = nil) {
    self.tls = tls
    self.names = names
    self.addresses = addresses
  }

  var needsTLS: Bool { tls || names != nil }

  /// - Throws: `invalid-value` or `value-impossible` where nobody could be meant by it.
  func validate(within pointer: String = "") throws(ServiceError) {
    for (list, member) in [(names, "names"), (addresses, "addresses")] {
      guard let list, !(1...ExportAccess.mostItems).contains(list.count) else { continue }
      throw ServiceError(
        .invalidValue, "1 to \(ExportAccess.mostItems) items are expected",
        pointer: "\(pointer)/access/\(member)")
    }
    for (index, name) in (names ?? []).enumerated()
    where !(1...ExportAccess.longestName).contains(name.characterCount) || name.utf8.contains(0) {
      throw ServiceError(
        .invalidValue, "a name has 1 to \(ExportAccess.longestName) characters, none of them NUL",
        pointer: "\(pointer)/access/names/\(index)")
    }
    // Without it, who may choose one kind of name could take another's.
    for (index, name) in (names ?? []).enumerated()
    where !ExportAccess.kinds.contains(where: { name.hasPrefix("\($0):") }) {
      throw ServiceError(
        .valueImpossible,
        "\(name.prefix(80)) does not say what it is a name of: dns:, uri:, mail:, cn: or psk:",
        pointer: "\(pointer)/access/names/\(index)")
    }
    for (index, address) in (addresses ?? []).enumerated() where Network(address) == nil {
      throw ServiceError(
        .valueImpossible,
        "\(address.prefix(80)) is neither an address nor a network, as 10.0.0.0/8",
        pointer: "\(pointer)/access/addresses/\(index)")
    }
  }

  /// - Throws: why this client does not get in. What he could change by TLS comes first, and whom an export is for is
  ///   not said to others.
  func require(_ visitor: Visitor, of export: String) throws(DoorRefusal) {
    guard visitor.isSecure || !needsTLS else {
      throw DoorRefusal(.needsTLS, "the export \(export) is served by TLS only")
    }
    if let names {
      // Bytes, since composed and decomposed characters are not one name to who has signed it.
      let isNamed = visitor.names.contains { own in
        names.contains { $0.utf8.elementsEqual(own.utf8) }
      }
      guard isNamed else {
        let who =
          visitor.names.isEmpty
          ? "nobody vouches for this client" : visitor.names.joined(separator: ", ")
        throw DoorRefusal(.policy, "the export \(export) is for others: \(who)")
      }
    }
    guard let addresses else { return }
    guard case .tcp(let host, _) = visitor.peer,
      addresses.contains(where: { Network($0)?.contains(host) == true })
    else {
      throw DoorRefusal(
        .policy, "the export \(export) is for clients from elsewhere than \(visitor.peer)")
    }
  }
}
