import CrashKit
import Glibc
import PloopIO

// crash-enumeration [--states N] [--seed S]: records every scenario, enumerates what power loss can
// leave of it, and ends with the line `states N bad 0`.
// crash-enumeration --faults [--seed S]: runs every scenario again for each call and each fault, and
// ends with the line `runs N bad 0`.

var wanted = 100_000
var seed = UInt64(monotonicNanoseconds() % 1_000_000)
var faultsOnly = false
var arguments = CommandLine.arguments.dropFirst()
while let name = arguments.popFirst() {
  switch name {
  case "--faults": faultsOnly = true
  case "--states": wanted = arguments.popFirst().flatMap { Int($0) } ?? wanted
  case "--seed": seed = arguments.popFirst().flatMap { UInt64($0) } ?? seed
  default:
    print("usage: crash-enumeration [--faults] [--states N] [--seed S]")
    exit(2)
  }
}

let workers = 2

/// Runs `body` on each scenario by each worker; a worker that throws is one bad result.
func onEachScenario(
  _ body: @escaping @Sendable (_ scenario: Scenario, _ worker: Int) throws -> (Int, [String])
) throws -> (count: Int, bad: [String]) {
  let total = Locked<(count: Int, bad: [String])>((0, []))
  for scenario in Scenario.allCases {
    let threads = try (0..<workers).map { worker in
      try Thread(name: "crash", stackBytes: 4 << 20) {
        do {
          let (count, bad) = try body(scenario, worker)
          total.withLock { total in
            total.count += count
            total.bad += bad
          }
        } catch {
          total.withLock { $0.bad.append("\(scenario.rawValue): \(error)") }
        }
      }
    }
    threads.forEach { $0.join() }
  }
  return total.withLock { $0 }
}

/// All scenarios once; states at each position are limited.
func enumerate(_ seed: UInt64, limit: Int) throws -> (count: Int, bad: [String]) {
  try onEachScenario { scenario, worker in
    let scratch = try ScratchFolder()
    let recording = try Recording(path: scratch.folder("recording"), scenario.setup)
    try scenario.run(recording, seed: seed)
    let result = try Enumeration(recording, path: scratch.folder("states")).run(
      seed: seed, limit: limit, share: worker, of: workers)
    return (result.states, result.bad + recording.problems)
  }
}

/// The changes of a chain, which have a driver of their own; states behind each event are limited.
func enumerateChanges(_ seed: UInt64, limit: Int) throws -> (count: Int, bad: [String]) {
  var total: (count: Int, bad: [String]) = (0, [])
  for scenario in ChainScenario.all {
    let scratch = try ScratchFolder()
    let recording = try scenario.recording(path: scratch.folder("recording"))
    try scenario.run(recording)
    let result = try recording.enumerate(
      path: scratch.folder("states"), .init(samples: limit, seed: seed))
    total.count += result.states
    total.bad += result.bad.map { "\(scenario.name): \($0)" }
  }
  return total
}

/// Forced repair, and hashes of deltas, which have drivers of their own.
func enumerateTools(_ seed: UInt64, limit: Int) throws -> (count: Int, bad: [String]) {
  let scratch = try ScratchFolder()
  let repair = try RepairRecording(path: scratch.folder("repair"))
  try repair.run()
  var result = try repair.enumerate(
    path: scratch.folder("repaired"), .init(samples: limit, seed: seed))
  let hash = try HashRecording(path: scratch.folder("hash"))
  try hash.run()
  result += try hash.enumerate(path: scratch.folder("hashed"), .init(samples: limit, seed: seed))
  return (result.states, result.bad)
}

func failChanges() throws -> (count: Int, bad: [String]) {
  var total: (count: Int, bad: [String]) = (0, [])
  for scenario in ChainScenario.all {
    let scratch = try ScratchFolder()
    for fault in ChainScenario.Fault.allCases {
      let calls = try scenario.calls(
        before: fault, path: scratch.folder("counted, \(fault.rawValue)"))
      for (number, call) in calls.enumerated() where fault.applies(to: call) {
        let path = scratch.folder("run")
        defer { ScratchFolder.remove(path) }
        total.count += 1
        if let bad = try scenario.run(failing: number, by: fault, path: path) {
          total.bad.append("\(scenario.name), call \(number) \(call), \(fault.rawValue): \(bad)")
        }
      }
    }
  }
  return total
}

print("seed \(seed)")
var count = 0
var bad: [String] = []
if faultsOnly {
  let seed = seed
  (count, bad) = try onEachScenario { scenario, worker in
    let result = try FaultSweep(scenario, seed: seed).run(first: worker, stride: workers)
    return (result.runs, result.bad)
  }
  let changes = try failChanges()
  let scratch = try ScratchFolder()
  let repairs = try RepairRecording(path: scratch.folder("repair")).sweep()
  count += changes.count + repairs.states
  bad += changes.bad + repairs.bad
} else {
  var round: UInt64 = 0
  while count < wanted, bad.isEmpty {
    let result = try enumerate(seed &+ round, limit: 32)
    let changes = try enumerateChanges(seed &+ round, limit: 8)
    let tools = try enumerateTools(seed &+ round, limit: 8)
    count += result.count + changes.count + tools.count
    bad += result.bad + changes.bad + tools.bad
    round += 1
  }
}
bad.prefix(20).forEach { print("BAD \($0)") }
print("\(faultsOnly ? "runs" : "states") \(count) bad \(bad.count)")
exit(bad.isEmpty ? 0 : 1)
