import TestSupport
import Testing

@Suite("The script of docs/examples")
struct ChainScriptTests {
  @Test("takes a disk through snapshots, merges, growth and kill -9, and finds every byte right")
  func chain() throws {
    let folder = try TemporaryFolder()
    let package = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let script = try Tool.shell(
      "PLOOPD='\(RunningService.program)' '\(package)/docs/examples/chain.sh' '\(folder.path)'",
      check: false, seconds: 600)
    #expect(script.status == 0, "\(script.output)")
    #expect(script.output.hasSuffix("== every byte is right\n"), "\(script.output)")
  }
}
