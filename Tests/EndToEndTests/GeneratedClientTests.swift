import Foundation
import TestSupport
import Testing

@Suite("A client that is generated from the contract")
struct GeneratedClientTests {
  @Test("accompanies a disk all its life")
  func life() throws {
    let folder = try TemporaryFolder()
    try Tool.shell("mkdir -p '\(folder.path)/images/backups'")
    let service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    let address = "http://\(try service.httpAddress())"
    let generated = try Tool.shell(
      """
      curl -sSf --max-time 60 -o '\(folder.path)/openapi.json' '\(address)/openapi.json' &&
      '\(PythonTools.path("openapi-python-client"))' generate --path '\(folder.path)/openapi.json' \
        --meta none --output-path '\(folder.path)/client' \
        --config '\(PythonTools.root)/Tests/Contract/client.yaml'
      """, seconds: 600
    ).output
    // What it cannot express it leaves out, and says so.
    #expect(!generated.contains("WARNING"), "\(generated)")
    let token = try Tool.shell(
      "'\(RunningService.program)' token add client --scope admin --state-dir '\(folder.path)/state'"
    ).output.trimmingCharacters(in: .newlines)
    let output = try Tool.shell(
      "'\(PythonTools.path("python"))' '\(PythonTools.root)/Tests/Contract/life_of_a_disk.py' '\(address)' '\(token)' '\(folder.path)'",
      seconds: 600
    ).output
    #expect(output.hasSuffix("done\n"), "\(output)")
    #expect(try service.end() == 0)
  }
}
