import CrashKit
import PloopIO
import TestSupport
import Testing

@Suite("Changes of a chain and power loss")
struct ChainCrashTests {
  @Test(
    "every state that power loss leaves holds what was promised, every snapshot, and nothing else",
    arguments: ChainScenario.each)
  func enumeration(scenario: ChainScenario) throws {
    let seed = UInt64(20_261_125)
    let scratch = try ScratchFolder()
    let recording = try scenario.recording(path: scratch.folder("recording"))
    try scenario.run(recording)
    let result = try recording.enumerate(
      path: scratch.folder("states"), Bounds(samples: 2, seed: seed))
    #expect(result.states > 150)
    #expect(result.bad.isEmpty, "seed \(seed), \(result.bad.count): \(result.bad.prefix(5))")
  }

  @Test(
    "a fault at any call, or a kill, leaves a chain that holds what was promised",
    arguments: ChainScenario.each, ChainScenario.Fault.allCases)
  func faults(scenario: ChainScenario, fault: ChainScenario.Fault) throws {
    let scratch = try ScratchFolder()
    let calls = try scenario.calls(before: fault, path: scratch.folder("counted"))
    #expect(calls.count > 150)
    for number in stride(from: 0, to: calls.count, by: 11) where fault.applies(to: calls[number]) {
      let path = scratch.folder("run")
      defer { ScratchFolder.remove(path) }
      let bad = try scenario.run(failing: number, by: fault, path: path)
      #expect(bad == nil, "\(scenario.name), call \(number) \(calls[number]), \(fault.rawValue)")
    }
  }
}
