import CrashKit
import Testing

@Suite("Hashes of deltas and power loss")
struct HashCrashTests {
  @Test("whatever is left of them says nothing wrong, and the next run ends with all of them")
  func enumeration() throws {
    let seed = UInt64(20_261_126)
    let scratch = try ScratchFolder()
    let recording = try HashRecording(path: scratch.folder("recording"))
    try recording.run()
    let result = try recording.enumerate(
      path: scratch.folder("states"), Bounds(samples: 6, seed: seed))
    #expect(result.states > 40, "\(result.states)")
    #expect(result.bad.isEmpty, "seed \(seed), \(result.bad.count): \(result.bad.prefix(5))")
  }
}
