import CrashKit
import Glibc
import PloopIO

// crash-enumeration [--states N] [--distinct N] [--images N] [--seed S] [--only NAME] [--keep FILE]: records every
// subject, looks at what power loss can leave of it, and ends with the line `states N distinct M images I bad 0`. One
// round is the short form; there are more until there are as many states as are wanted, and different ones. Seeds that
// are kept in FILE come first, and those that fail are written down there.
// crash-enumeration --faults [--seed S]: runs every scenario again for each call and each fault, and
// ends with the line `runs N bad 0`.

var wanted = 100_000
var wantedDistinct = 0
/// What `qemu-img check` judges in a run.
var imageLimit = 2_000
var seed = UInt64(monotonicNanoseconds() % 1_000_000)
var faultsOnly = false
/// A part of the subjects' names.
var only: String?
/// Where failing seeds are written down.
var kept: String?
var arguments = CommandLine.arguments.dropFirst()
while let name = arguments.popFirst() {
  let value = name == "--faults" ? nil : arguments.popFirst()
  let number = value.flatMap { Int($0) }
  switch (name, value, number) {
  case ("--faults", _, _): faultsOnly = true
  case ("--states", _, let number?): wanted = number
  case ("--distinct", _, let number?): wantedDistinct = number
  case ("--images", _, let number?): imageLimit = number
  case ("--seed", let value?, _) where UInt64(value) != nil: seed = UInt64(value) ?? seed
  case ("--only", let value?, _): only = value
  case ("--keep", let value?, _): kept = value
  default:
    print(
      "usage: crash-enumeration [--faults] [--states N] [--distinct N] [--images N] [--seed S] [--only NAME] [--keep FILE]"
    )
    exit(2)
  }
}

let workers = max(2, sysconf(Int32(_SC_NPROCESSORS_ONLN)))

/// Runs `body` with each number below a count, some at the same time; one that throws is a bad result.
func forEach(
  _ count: Int, _ body: @escaping @Sendable (Int) throws -> (Int, [String])
) throws -> (count: Int, bad: [String]) {
  let total = Locked<(count: Int, bad: [String])>((0, []))
  let next = Locked(0)
  let threads = try (0..<workers).map { _ in
    try Thread(name: "crash", stackBytes: 4 << 20) {
      while true {
        let number = next.withLock { next in
          defer { next += 1 }
          return next
        }
        guard number < count else { return }
        do {
          let (count, bad) = try body(number)
          total.withLock { total in
            total.count += count
            total.bad += bad
          }
        } catch {
          total.withLock { $0.bad.append("\(number): \(error)") }
        }
      }
    }
  }
  threads.forEach { $0.join() }
  return total.withLock { $0 }
}

// MARK: Faults

func failDisks(_ seed: UInt64) throws -> (count: Int, bad: [String]) {
  var total: (count: Int, bad: [String]) = (0, [])
  for scenario in Scenario.failing {
    let result = try forEach(workers) { [workers] worker in
      let result = try FaultSweep(scenario, seed: seed).run(first: worker, stride: workers)
      return (result.runs, result.bad.map { "\(scenario.rawValue): \($0)" })
    }
    total.count += result.count
    total.bad += result.bad
  }
  return total
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

// MARK: States

/// All subjects, one of them after the other in each round.
struct Run {
  let subjects: [Subject]
  let looks: [Looks]
  var count = 0
  var bad: [String] = []

  /// - Parameter name: a part of the names of those that are looked at; nil for all.
  init(_ name: String?, _ goal: Goal) {
    subjects = Subject.all.filter { name.map($0.name.contains) ?? true }
    looks = subjects.map { _ in Looks(goal) }
  }

  var distinct: Int { looks.reduce(0) { $0 + $1.distinct } }
  var images: Int { looks.reduce(0) { $0 + $1.judged } }

  /// Looks once more at what has failed before.
  mutating func again(_ kept: String) throws {
    let lines = try FailedSeeds(kept).lines
    let result = try forEach(lines.count) { number in
      guard let result = try lines[number].enumerate() else {
        return (0, ["nothing is called \(lines[number].subject)"])
      }
      return (result.states, result.bad.map { "\(lines[number]): \($0)" })
    }
    bad += result.bad
    print("\(lines.count) seeds that have failed: states \(result.count) bad \(result.bad.count)")
  }

  /// - Parameters:
  ///   - number: of the round; from the second on only what is new is looked at, and more of it.
  ///   - images: that QEMU judges, all subjects together.
  mutating func round(_ number: Int, seed: UInt64, images: Int, kept: String?) throws {
    let failed = Locked<[(line: FailedSeeds.Line, fault: String)]>([])
    let result = try forEach(subjects.count) { [subjects, looks] index in
      let subject = subjects[index]
      let samples = number == 0 ? subject.samples.first : subject.samples.further
      looks[index].begin(onlyNew: number > 0, images: images / subjects.count)
      let result: Enumeration.Result
      do {
        result = try subject.enumerate(seed: seed, samples: samples, looks[index])
      } catch {
        result = Enumeration.Result(states: 0, bad: ["seed \(seed): \(error)"])
      }
      if let fault = result.bad.first {
        let line = FailedSeeds.Line(seed: seed, samples: samples, subject: subject.name)
        failed.withLock { $0.append((line, fault)) }
      }
      return (result.states, result.bad.map { "\(subject.name): \($0)" })
    }
    count += result.count
    bad += result.bad
    for (line, fault) in failed.withLock({ $0 }) {
      print("FAILED SEED \(line)")
      if let kept { try FailedSeeds(kept).add(line, why: fault) }
    }
  }
}

print("seed \(seed)")
if faultsOnly {
  var (count, bad) = try failDisks(seed)
  let changes = try failChanges()
  let scratch = try ScratchFolder()
  let repairs = try RepairRecording(path: scratch.folder("repair")).sweep()
  count += changes.count + repairs.states
  bad += changes.bad + repairs.bad
  bad.prefix(20).forEach { print("BAD \($0)") }
  print("runs \(count) bad \(bad.count)")
  exit(bad.isEmpty ? 0 : 1)
}

let goal = Goal(states: wanted, distinct: wantedDistinct)
var run = Run(only, goal)
guard !run.subjects.isEmpty else {
  print("no subject's name has that in it; there are: \(Subject.all.map(\.name))")
  exit(2)
}
let begun = monotonicNanoseconds()
if let kept, only == nil { try run.again(kept) }
var round = 0
repeat {
  // Half of those that are left are for later rounds, where there are any.
  let share = wantedDistinct == 0 && wanted <= 100_000 ? 1 : 2
  try run.round(
    round, seed: seed &+ UInt64(round), images: (imageLimit - run.images) / share, kept: kept)
  let seconds = (monotonicNanoseconds() - begun) / 1_000_000_000
  print(
    "round \(round) states \(run.count) distinct \(run.distinct) images \(run.images) after \(seconds) s"
  )
  fflush(nil)
  round += 1
} while run.bad.isEmpty && !goal.isReached
run.bad.prefix(20).forEach { print("BAD \($0)") }
print(
  "states \(run.count) distinct \(run.distinct) images \(run.images) bad \(run.bad.count)")
exit(run.bad.isEmpty ? 0 : 1)
