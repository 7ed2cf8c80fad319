internal import Glibc

/// Whom the Unix socket serves, by what the kernel says of them: root, the service's own user and the
/// members of one group do everything, those of another one read.
package struct PeerRules: Sendable {
  package static let adminGroup = "ploopd"
  package static let readGroup = "ploopd-read"

  private let ownUser: UInt32
  private let admins: UInt32?
  private let readers: UInt32?

  /// - Parameters:
  ///   - admins: number of the group; nil where there is none.
  package init(ownUser: UInt32, admins: UInt32?, readers: UInt32?) {
    self.ownUser = ownUser
    self.admins = admins
    self.readers = readers
  }

  /// Groups by their names, as the host knows them now.
  package init(
    adminGroup: String = PeerRules.adminGroup, readGroup: String = PeerRules.readGroup
  ) {
    self.init(
      ownUser: geteuid(), admins: PeerRules.group(adminGroup), readers: PeerRules.group(readGroup))
  }

  /// - Parameter groups: all that the peer was in when it connected.
  /// - Returns: nil for somebody who has no business here.
  package func grant(user: UInt32, groups: [UInt32]) -> Grant? {
    if user == 0 || user == ownUser { return .all }
    if let admins, groups.contains(admins) { return .all }
    if let readers, groups.contains(readers) { return Grant([.read]) }
    return nil
  }

  private static func group(_ name: String) -> UInt32? {
    var entry = Glibc.group()
    // The C library says by a pointer whether it has filled the entry; it is compared with nil only.
    var found: UnsafeMutablePointer<Glibc.group>?
    var buffer = [CChar](repeating: 0, count: 1 << 16)
    while true {
      let code = getgrnam_r(name, &entry, &buffer, buffer.count, &found)
      if code == ERANGE, buffer.count < 1 << 24 {
        buffer = [CChar](repeating: 0, count: buffer.count * 2)
        continue
      }
      return code == 0 && found != nil ? entry.gr_gid : nil
    }
  }
}
