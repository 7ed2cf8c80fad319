import CrashKit
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Backups and power loss")
struct BackupCrashTests {
  @Test(
    "every state that power loss leaves has the whole points, each as it was, and can be gone on with"
  )
  func enumeration() throws {
    let seed = UInt64(20_261_126)
    let scratch = try ScratchFolder()
    let recording = try BackupRecording(path: scratch.folder("recording"))
    try recording.run()
    let result = try recording.enumerate(
      path: scratch.folder("states"), Bounds(samples: 2, seed: seed))
    #expect(result.states > 150)
    #expect(result.bad.isEmpty, "seed \(seed), \(result.bad.count): \(result.bad.prefix(5))")
  }

  @Test(
    "a fault at any call, or a kill, is told and costs no whole point", arguments: [false, true])
  func faults(isKill: Bool) throws {
    let scratch = try ScratchFolder()
    let calls = try BackupRecording.calls(path: scratch.folder("counted"))
    #expect(calls > 150)
    for number in 0..<calls {
      let path = scratch.folder("run")
      defer { ScratchFolder.remove(path) }
      let fault = try BackupRecording.run(failing: number, isKill: isKill, path: path)
      #expect(fault == nil, "call \(number)")
    }
  }
}

@Suite("The image of a restore and power loss")
struct FileCrashTests {
  @Test(
    "an image without a journal is whole, and one with it is gone on with",
    arguments: [ImageVersion.v1, .v2], [false, true])
  func enumeration(version: ImageVersion, isSharing: Bool) throws {
    let seed = UInt64(20_261_128)
    let scratch = try ScratchFolder()
    let recording = try FileRecording(
      path: scratch.folder("recording"), version,
      lender: isSharing ? scratch.folder("lender") : nil)
    try recording.run()
    let result = try recording.enumerate(
      path: scratch.folder("states"), Bounds(samples: 5, seed: seed))
    #expect(result.states > 100)
    #expect(result.bad.isEmpty, "seed \(seed), \(result.bad.count): \(result.bad.prefix(5))")
  }
}

@Suite("Backups in an export or one file, and power loss")
struct SinglePointCrashTests {
  typealias Kind = SinglePointRecording.Kind

  @Test(
    "every state that power loss leaves has the whole backup, or none, or one to go on with",
    arguments: Kind.allCases)
  func enumeration(kind: Kind) throws {
    let seed = UInt64(20_261_127)
    let scratch = try ScratchFolder()
    let recording = try SinglePointRecording(path: scratch.folder("recording"), kind)
    try recording.run()
    let result = try recording.enumerate(
      path: scratch.folder("states"), Bounds(samples: 3, seed: seed))
    #expect(result.states > 150)
    #expect(result.bad.isEmpty, "seed \(seed), \(result.bad.count): \(result.bad.prefix(5))")
  }

  @Test(
    "a fault at any call, or a kill, is told and costs no whole backup", arguments: [false, true],
    Kind.allCases)
  func faults(isKill: Bool, kind: Kind) throws {
    let scratch = try ScratchFolder()
    let calls = try SinglePointRecording.calls(path: scratch.folder("counted"), kind)
    #expect(calls > 100)
    for number in 0..<calls {
      let path = scratch.folder("run")
      defer { ScratchFolder.remove(path) }
      let fault = try SinglePointRecording.run(failing: number, isKill: isKill, path: path, kind)
      #expect(fault == nil, "call \(number)")
    }
  }
}
