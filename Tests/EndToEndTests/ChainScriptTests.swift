import TestSupport
import Testing

@Suite("The scripts of docs/examples")
struct ChainScriptTests {
  @Test(
    "take a disk through all that is documented, kill -9 included, and find every byte right",
    arguments: [("chain.sh", "every byte is right"), ("backup.sh", "all points are right")])
  func script(name: String, end: String) throws {
    let folder = try TemporaryFolder()
    let package = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let script = try Tool.shell(
      "PLOOPD='\(RunningService.program)' '\(package)/docs/examples/\(name)' '\(folder.path)'",
      check: false, seconds: 600)
    #expect(script.status == 0, "\(script.output)")
    #expect(script.output.hasSuffix("== \(end)\n"), "\(script.output)")
  }

  @Test("have a client in Python that makes a disk, backs it up and restores it")
  func client() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    let package = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let script = try Tool.shell(
      "python3 '\(package)/docs/examples/client.py' '\(service.httpSocket)'", check: false,
      seconds: 600)
    #expect(script.status == 0, "\(script.output)")
    let said = script.output.split(separator: "\n")
    let listed = ["devices: ['py1', 'py2']", "devices left: []"].map { Substring($0) }
    #expect(listed.allSatisfy(said.contains), "\(script.output)")
    // At least once; how often depends on who is faster.
    #expect(said.contains { $0.hasPrefix("  backup ") && $0.hasSuffix(" clusters") })
  }
}
