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
}
