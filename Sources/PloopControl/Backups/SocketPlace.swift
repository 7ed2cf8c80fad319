internal import Glibc
internal import PloopBackup
internal import PloopIO

// Where the socket of an NBD server lies that a target names by its path: beneath a root, as everything that
// requests name, and opened as such.

extension TargetPlace {
  /// The path of the socket of an `nbd+unix://`, `nbds+unix://` or `http+unix://` address; nil of any other.
  ///
  /// - Parameter pointer: to the member of a request that has it.
  /// - Throws: `value-impossible` for one with no socket, or with several.
  static func socketPath(
    of uri: String, pointer: String = "/uri"
  ) throws(ServiceError) -> String? {
    guard ["nbd+unix://", "nbds+unix://", "http+unix://", "unix://"].contains(where: uri.hasPrefix)
    else {
      return nil
    }
    let bytes = Array(uri.utf8.prefix { $0 != UInt8(ascii: "#") })
    let query = bytes.split(separator: UInt8(ascii: "?"), maxSplits: 1).dropFirst().first ?? []
    let name = Array("socket=".utf8)
    let parts = query.split { $0 == UInt8(ascii: "&") || $0 == UInt8(ascii: ";") }
    let sockets = parts.filter { $0.starts(with: name) }
    guard sockets.count == 1, let value = sockets.first?.dropFirst(name.count),
      let path = PercentEncoding.decode(value), !path.isEmpty
    else {
      throw ServiceError(
        .valueImpossible, "uri: ?socket= with the path of one socket is expected", pointer: pointer)
    }
    return path
  }
}

extension Service {
  /// Where a target's server has its socket, if it has one with a path.
  ///
  /// - Throws: `value-impossible`; `path-outside-root` for one that lies beneath no root.
  func socket(
    of uri: String, pointer: String = "/uri"
  ) throws(ServiceError) -> Roots.Location? {
    guard let path = try TargetPlace.socketPath(of: uri, pointer: pointer) else { return nil }
    return try path.utf8.first == UInt8(ascii: "/")
      ? roots.locate(absolute: path, pointer: pointer) : roots.locate(path, pointer: pointer)
  }

  private static let uriLengthLimit = 1_024

  /// - Throws: `invalid-value` for what is no address of an NBD server, `value-impossible` for one that can be none of
  ///   a file of this machine; as ``socket(of:pointer:)``.
  func requireAddress(_ uri: String, pointer: String) throws(ServiceError) {
    guard uri.characterCount <= Service.uriLengthLimit,
      ["nbd://", "nbds://", "nbd+unix://", "nbds+unix://"].contains(where: uri.hasPrefix)
    else {
      throw ServiceError(
        .invalidValue, "uri: one of nbd://, nbds://, nbd+unix:// or nbds+unix:// is expected",
        pointer: pointer)
    }
    guard !uri.utf8.contains(0) else {
      throw ServiceError(.valueImpossible, "uri: it has a byte 0", pointer: pointer)
    }
    _ = try socket(of: uri, pointer: pointer)
  }

  /// How a server is trusted, as it is written down: with its root, whatever roots there are later.
  ///
  /// - Parameter pointer: to the member of a request that says so.
  func canonical(
    _ tls: TargetTLS?, of uri: String?, pointer: String = "/tls"
  ) throws(ServiceError) -> TargetTLS? {
    guard var tls else { return nil }
    guard let uri, uri.hasPrefix("nbds") else {
      throw ServiceError(
        .valueImpossible, "tls: the address is none with TLS (nbds://, nbds+unix://)",
        pointer: pointer
      )
    }
    if let path = tls.certificates {
      tls.certificates = try roots.locate(path, pointer: "\(pointer)/certificates").path
    }
    return tls
  }

  func nbdOptions(_ uri: String, _ tls: TargetTLS?) throws(ServiceError) -> NBDOptions {
    var options = NBDOptions()
    options.verifiesServer = tls?.verify ?? true
    if let path = tls?.certificates {
      let folder = try roots.locate(path, pointer: "")
      options.certificates = { [roots] () throws(BackupError) in
        do throws(ServiceError) { return try roots.folder(at: folder, pointer: "") } catch {
          throw BackupError(.target(code: ENOENT), error.detail)
        }
      }
    }
    guard let socket = try socket(of: uri) else { return options }
    options.socket = { [roots] () throws(BackupError) in
      do throws(ServiceError) { return try roots.socket(at: socket) } catch {
        throw BackupError(.target(code: ENOENT), error.detail)
      }
    }
    return options
  }
}

extension Roots {
  /// A socket, by a path that leads to it whatever becomes of the folders above.
  func socket(at location: Roots.Location) throws(ServiceError) -> PathHandle {
    let folder = try folder(of: location, pointer: "")
    do throws(IOError) { return try folder.place(of: location.name) } catch {
      throw ServiceError(error)
    }
  }
}
