internal import Glibc
internal import PloopBackup
internal import PloopIO

// Where the socket of an NBD server lies that a target names by its path: beneath a root, as everything that
// requests name, and opened as such.

extension TargetPlace {
  /// The path of the socket of an `nbd+unix://` or `nbds+unix://` address; nil of any other.
  ///
  /// - Throws: `invalid-value` for one with no socket, or with several.
  static func socketPath(of uri: String) throws(ServiceError) -> String? {
    guard uri.hasPrefix("nbd+unix://") || uri.hasPrefix("nbds+unix://") else { return nil }
    let bytes = Array(uri.utf8.prefix { $0 != UInt8(ascii: "#") })
    let query = bytes.split(separator: UInt8(ascii: "?"), maxSplits: 1).dropFirst().first ?? []
    let name = Array("socket=".utf8)
    let parts = query.split { $0 == UInt8(ascii: "&") || $0 == UInt8(ascii: ";") }
    let sockets = parts.filter { $0.starts(with: name) }
    guard sockets.count == 1, let value = sockets.first?.dropFirst(name.count),
      let path = PercentEncoding.decode(value), !path.isEmpty
    else {
      throw ServiceError(
        .invalidValue, "uri: ?socket= with the path of one socket is expected", pointer: "/uri")
    }
    return path
  }
}

extension Service {
  /// Where a target's server has its socket, if it has one with a path.
  ///
  /// - Throws: `invalid-value`; `path-outside-root` for one that lies beneath no root.
  func socket(of uri: String) throws(ServiceError) -> Roots.Location? {
    guard let path = try TargetPlace.socketPath(of: uri) else { return nil }
    return try path.utf8.first == UInt8(ascii: "/")
      ? roots.locate(absolute: path, pointer: "/uri") : roots.locate(path, pointer: "/uri")
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
      do throws(ServiceError) {
        let folder = try roots.folder(of: socket, pointer: "")
        do throws(IOError) { return try folder.place(of: socket.name) } catch {
          throw ServiceError(error)
        }
      } catch { throw BackupError(.target(code: ENOENT), error.detail) }
    }
    return options
  }
}
