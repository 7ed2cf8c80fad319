/// The servers that are compared.
package enum Peer: String, CaseIterable, Sendable {
  case ploopd
  /// ploopd of another commit (`bench compare`).
  case base
  case qemu = "qemu-nbd"
  case qemuRing = "qemu-nbd io_uring"
  case qcow2 = "qemu-nbd qcow2"
  case nbdkit
  case nbdServer = "nbd-server"
  case null

  var isPloopd: Bool { self == .ploopd || self == .base }

  /// How the name of its image ends.
  var suffix: String {
    switch self {
    case .ploopd, .base, .qemu, .qemuRing: "hds"
    case .qcow2: "qcow2"
    case .nbdkit, .nbdServer, .null: "raw"
    }
  }
}

/// A server with one export, and the files behind it, oldest first.
package final class Contender {
  package let peer: Peer
  /// What it is called in results; the peer's name unless there are several of one.
  package let name: String
  let address: NBDAddress
  /// Whose processor time counts; nil where a process for each client makes that hard to say.
  let process: Int32?
  let files: [String]
  private let end: () throws -> Void

  init(
    _ peer: Peer, name: String? = nil, _ address: NBDAddress, process: Int32?, files: [String],
    end: @escaping () throws -> Void
  ) {
    self.peer = peer
    self.name = name ?? peer.rawValue
    self.address = address
    self.process = process
    self.files = files
    self.end = end
  }

  /// Closes its images as a user would.
  func stop() throws { try end() }
}
