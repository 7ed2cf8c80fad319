import CrashKit
import Glibc
import Testing

@Suite("Forced repair, power loss and faults")
struct RepairCrashTests {
  @Test(
    "what could be read reads the same in every state, the copies are there, and the end is reached"
  )
  func enumeration() throws {
    let seed = UInt64(20_261_126)
    let scratch = try ScratchFolder()
    let recording = try RepairRecording(path: scratch.folder("recording"))
    try recording.run()
    let result = try recording.enumerate(
      path: scratch.folder("states"), Bounds(samples: 12, seed: seed))
    #expect(result.states > 100, "\(result.states)")
    #expect(result.bad.isEmpty, "seed \(seed), \(result.bad.count): \(result.bad.prefix(5))")
  }

  @Test("so it is after a failure of any call")
  func faults() throws {
    let scratch = try ScratchFolder()
    let recording = try RepairRecording(path: scratch.folder("recording"))
    let result = try recording.sweep()
    #expect(result.states > 40, "\(result.states)")
    #expect(result.bad.isEmpty, "\(result.bad.count): \(result.bad.prefix(5))")
  }
}
