internal import Glibc
internal import PloopControl
internal import PloopIO

/// `ploopd serve --check-config`: whether the service could start, told beside one that runs. Nothing is made, locked or
/// served for it.
extension ServiceProcess {
  /// All that would keep the service from starting.
  func faults() -> [Settings.Fault] {
    var faults: [Settings.Fault] = []
    func look(_ body: () throws(Settings.Fault) -> Void) {
      do throws(Settings.Fault) { try body() } catch { faults.append(error) }
    }
    let made = settings.ownFolders
    look { () throws(Settings.Fault) in
      try requirePlace(settings.stateFolder, "state-dir", orElseIn: made)
    }
    for root in settings.roots where !made.contains(root.path) {
      look { () throws(Settings.Fault) in
        do throws(ServiceError) { _ = try Roots([root]) } catch {
          throw Settings.Fault(description: "root: \(error.detail)")
        }
      }
    }
    let files = [
      (settings.httpSocket, "http-socket"), (settings.nbdSocket, "nbd-socket"),
      (settings.auditPath, "audit-log"),
    ]
    for case (let path?, let name) in files {
      look { () throws(Settings.Fault) in
        try requirePlace(Self.folder(of: path), name, orElseIn: made)
      }
    }
    let addresses = [(settings.httpListen, "http-listen"), (settings.nbdListen, "nbd-listen")]
    for case (let address?, let name) in addresses where address.host != Settings.vsock {
      look { () throws(Settings.Fault) in try requireOwn(address.host, name) }
    }
    look { () throws(Settings.Fault) in _ = try settings.fleet(host: Self.hostName(), log: log) }
    look { () throws(Settings.Fault) in _ = try identity() }
    look { () throws(Settings.Fault) in try loadNBDIdentity() }
    return faults
  }

  private static func folder(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// - Parameter made: folders that the service makes where they are missing.
  private func requirePlace(
    _ folder: String, _ name: String, orElseIn made: [String]
  ) throws(Settings.Fault) {
    var entry = stat()
    if stat(folder, &entry) == 0 {
      guard entry.st_mode & S_IFMT == S_IFDIR else {
        throw Settings.Fault(description: "\(name): \(folder) is no folder")
      }
      guard access(folder, W_OK | X_OK) == 0 else {
        throw Settings.Fault(
          description:
            "\(name): this user (\(geteuid())) cannot write in \(folder): \(IOError.text(of: errno))"
        )
      }
      return
    }
    let code = errno
    let parent = Self.folder(of: folder)
    guard code == ENOENT, made.contains(folder) else {
      throw Settings.Fault(
        description: "\(name): \(folder) cannot be used: \(IOError.text(of: code))")
    }
    guard !made.contains(parent) else { return }
    guard access(parent, W_OK | X_OK) == 0 else {
      throw Settings.Fault(
        description:
          "\(name): \(folder) is missing and cannot be made: \(IOError.text(of: errno))")
    }
  }

  /// A host that this machine can listen at; any port of it says so, and none is taken from a service that runs.
  private func requireOwn(_ host: String, _ name: String) throws(Settings.Fault) {
    do throws(IOError) { _ = try ListeningSocket.tcp(host: host, port: 0) } catch {
      throw Settings.Fault(description: "\(name): nobody can listen at \(host): \(error)")
    }
  }
}
