import CrashKit
import Testing

@Suite("Power loss at any moment")
struct CrashTests {
  @Test(
    "leaves every sector with its last durable or a newer value, in an image that attaches",
    arguments: Scenario.allCases)
  func enumerate(_ scenario: Scenario) throws {
    let seed: UInt64 = 20_261_124
    let scratch = try ScratchFolder()
    let recording = try Recording(path: scratch.folder("recording"), scenario.setup)
    try scenario.run(recording, seed: seed)
    #expect(recording.problems.isEmpty)
    let result = try Enumeration(recording, path: scratch.folder("states")).run(
      Bounds(samples: 4, seed: seed))
    #expect(result.states > 30)
    #expect(result.bad.isEmpty, "seed \(seed): \(result.bad.prefix(5))")
  }
}
