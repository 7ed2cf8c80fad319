import CrashKit
import TestSupport
import Testing

@Suite("A fault at any system call")
struct FaultTests {
  @Test(
    "is told to its caller, changes nobody else's data, and leaves an image that opens",
    arguments: Scenario.failing)
  func sweep(_ scenario: Scenario) throws {
    let seed: UInt64 = 20_261_124
    // Each call of the short scenarios, every third of the long ones; `make faults` takes all.
    let sweep = try FaultSweep(scenario, seed: seed)
    var runs = 0
    let result = try sweep.run(stride: sweep.operations.count > 120 ? 3 : 1) { image in
      runs += 1
      if runs % 100 == 1 { try Tool.shell("qemu-img check -f parallels '\(image)'") }
    }
    #expect(result.runs > 100)
    #expect(result.bad.isEmpty, "seed \(seed): \(result.bad.prefix(5))")
  }
}
