import Foundation
import TestSupport

/// `ploopctl` as people have it, against a service of a test's own.
struct PloopctlFixture {
  let folder: TemporaryFolder
  let service: RunningService
  private let program = RunningService.builtProgram("ploopctl")

  init(_ extra: [String] = [], httpListen: String = "none") throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path, extra, httpListen: httpListen)
  }

  /// What a shell has to know before a command line.
  var setting: String {
    "cd '\(folder.path)'; export PLOOPD_ADDRESS='unix:\(service.httpSocket)'; ploopctl() { '\(program)' \"$@\"; };"
  }

  /// Runs command lines of the shell that use `ploopctl`.
  @discardableResult
  func shell(_ lines: String, check: Bool = true, seconds: Int = 120) throws -> Tool.Result {
    try Tool.shell("\(setting)\n\(lines)", check: check, seconds: seconds)
  }

  @discardableResult
  func run(_ arguments: String, check: Bool = true) throws -> String {
    try shell("ploopctl \(arguments)", check: check).output
  }

  func status(_ arguments: String) throws -> Int32 {
    try shell("ploopctl \(arguments)", check: false).status
  }

  func json(_ arguments: String) throws -> [String: Any] {
    let text = try shell("ploopctl \(arguments) --json 2> /dev/null", check: false).output
    return (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any] ?? [:]
  }

  /// Begins a command in the background, its output and errors in files.
  func begin(_ arguments: String, _ name: String) throws -> ChildProcess {
    try ChildProcess(
      ["/bin/bash", "-c", "\(setting) exec '\(program)' \(arguments)"],
      output: "\(folder.path)/\(name).out", errors: "\(folder.path)/\(name).err")
  }

  func text(_ file: String) throws -> String {
    try Tool.shell("cat '\(folder.path)/\(file)'").output
  }
}
