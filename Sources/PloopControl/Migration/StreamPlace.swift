internal import Glibc
internal import Logging
internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Somebody who listens, and gives what comes to OpenVZ's `ploop copy -d`: the file of the disk's top, which is a closed
/// image when the last packet has come. Deltas below it do not change, and are copied by whoever wants them.
///
/// What comes has no name and no place to go on at: who is lost gets all of it again.
final class StreamPlace: MigrationPlace {
  typealias Connector = @Sendable (Deadline) throws(IOError) -> ClientSocket

  let words: String
  private let service: Service
  private let stream = Locked<CopyStream?>(nil)

  init(_ address: String, _ service: Service) {
    words = address
    self.service = service
  }

  var space: Tracker.Space { .image }

  func open(
    for geometry: Geometry
  ) throws(ServiceError) -> (export: any BlockExport, isBlank: Bool) {
    // The one before has got what it has.
    stream.withLock { $0 = nil }
    let connect = try StreamPlace.connector(words, service)
    let made = try backingUp { () throws(BackupError) in
      try CopyStream(words, connect: connect)
    }
    stream.withLock { $0 = made }
    return (made, false)
  }

  /// The last packet. The receiver has everything by now, durably: one that was lost since ends with an error, and
  /// with a whole image.
  func takeOver() throws(ServiceError) {
    do throws(BackupError) { try stream.withLock({ $0 })?.end() } catch {
      service.log.warning("a receiver was lost behind its last byte", metadata: ["to": "\(words)"])
    }
    stream.withLock { $0 = nil }
  }

  func discard() { stream.withLock { $0 = nil } }

  /// - Throws: `invalid-value`, `value-impossible`; `path-outside-root` for a socket that lies beneath no root.
  static func connector(
    _ address: String, _ service: Service
  ) throws(ServiceError) -> Connector {
    let pointer = "/params/to/stream"
    if let place = try service.socket(of: address, pointer: pointer) {
      return { [roots = service.roots] (deadline) throws(IOError) in
        let found: PathHandle
        do throws(ServiceError) { found = try roots.socket(at: place) } catch {
          throw IOError("open", path: address, code: ENOENT)
        }
        defer { withExtendedLifetime(found) {} }
        return try ClientSocket.unix(path: found.path, name: address, until: deadline)
      }
    }
    guard let (host, port) = hostAndPort(of: address) else {
      throw ServiceError(
        address.hasPrefix(scheme) ? .valueImpossible : .invalidValue,
        "stream: tcp://HOST:PORT or unix:///?socket= is expected", pointer: pointer)
    }
    return { (deadline) throws(IOError) in
      try ClientSocket.tcp(host: host, port: port, name: address, until: deadline)
    }
  }

  private static let scheme = "tcp://"

  private static func hostAndPort(of address: String) -> (String, UInt16)? {
    guard address.hasPrefix(scheme), address.utf8.count <= 256,
      let colon = address.lastIndex(of: ":"),
      let port = UInt16(address[address.index(after: colon)...]), port > 0
    else { return nil }
    var host = address[..<colon].dropFirst(scheme.count)
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    guard !host.isEmpty, !host.utf8.contains(0), !host.contains("/") else { return nil }
    return (String(host), port)
  }
}
