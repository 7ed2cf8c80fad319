import CrashKit
import Glibc
import PloopIO

// crash-enumeration [--states N] [--seed S]: records every scenario, enumerates what power loss can
// leave of it, and ends with the line `states N bad 0`.

var wanted = 100_000
var seed = UInt64(monotonicNanoseconds() % 1_000_000)
var arguments = CommandLine.arguments.dropFirst()
while let name = arguments.popFirst(), let value = arguments.popFirst() {
  switch name {
  case "--states": wanted = Int(value) ?? wanted
  case "--seed": seed = UInt64(value) ?? seed
  default:
    print("usage: crash-enumeration [--states N] [--seed S]")
    exit(2)
  }
}

/// All scenarios once, on two threads; states at each position are limited.
func pass(_ seed: UInt64, limit: Int) throws -> Enumeration.Result {
  let total = Locked(Enumeration.Result())
  for scenario in Scenario.allCases {
    let threads = try (0..<2).map { worker in
      try Thread(name: "crash", stackBytes: 4 << 20) {
        do {
          let scratch = try ScratchFolder()
          let recording = try Recording(
            path: scratch.folder("recording"), geometry: scenario.geometry,
            hasBase: scenario.hasBase)
          try scenario.run(recording, seed: seed)
          let result = try Enumeration(recording, path: scratch.folder("states")).run(
            seed: seed, limit: limit, share: worker, of: 2)
          total.withLock { $0 += result }
        } catch {
          total.withLock { $0.bad.append("\(scenario.rawValue): \(error)") }
        }
      }
    }
    threads.forEach { $0.join() }
  }
  return total.withLock { $0 }
}

print("seed \(seed)")
var result = Enumeration.Result()
var round: UInt64 = 0
while result.states < wanted, result.bad.isEmpty {
  result += try pass(seed &+ round, limit: 32)
  round += 1
}
result.bad.prefix(20).forEach { print("BAD \($0)") }
print("states \(result.states) bad \(result.bad.count)")
exit(result.bad.isEmpty ? 0 : 1)
