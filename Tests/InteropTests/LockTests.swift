internal import Glibc
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("The locks on images")
struct LockTests {
  private let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 1 << 20)

  @Test("of a disk attached for writing keep QEMU out, and are gone after the detach")
  func attachedKeepsQEMUOut() throws {
    let bench = try makeChain()
    let device = try bench.attach(["base", "top"])
    for command in Self.readingCommands + Self.writingCommands {
      try expectLocked(command, bench.path("top"))
    }
    // The lower delta is only read: others may read it too, and not write.
    for command in Self.writingCommands { try expectLocked(command, bench.path("base")) }
    for command in Self.readingCommands { try Tool.shell("\(command) '\(bench.path("base"))'") }
    try device.close()
    for command in Self.readingCommands + Self.writingCommands {
      try Tool.shell("\(command) '\(bench.path("top"))' && \(command) '\(bench.path("base"))'")
    }
  }

  @Test("of a disk attached for reading let QEMU read and not write")
  func readonlySharesWithReaders() throws {
    let bench = try makeChain()
    let device = try bench.attach(["base", "top"], readonly: true)
    for name in ["base", "top"] {
      for command in Self.readingCommands { try Tool.shell("\(command) '\(bench.path(name))'") }
      for command in Self.writingCommands { try expectLocked(command, bench.path(name)) }
    }
    let other = try bench.attach(["base", "top"], readonly: true)
    try other.close()
    try expectRefusedAsLocked(bench, readonly: false)
    try device.close()
  }

  @Test("keep a second attach out, but for a lower delta that both only read")
  func attachedTwice() throws {
    let bench = try makeChain()
    try bench.makeImage("other", geometry)
    let device = try bench.attach(["base", "top"])
    try expectRefusedAsLocked(bench, readonly: false)
    try expectRefusedAsLocked(bench, readonly: true)
    for names in [["base"], ["top", "other"]] {
      let error = #expect(throws: DeviceError.self) { try bench.attach(names) }
      guard case .locked? = error?.kind else {
        Issue.record("\(names) refused as \(String(describing: error))")
        continue
      }
    }
    let sibling = try bench.attach(["base", "other"])
    #expect(try sibling.bytes(0, 1) == [0xA1])
    try sibling.close()
    try device.close()
  }

  @Test("of a QEMU that writes keep us out, top or base, for writing and for reading")
  func writerKeepsUsOut() throws {
    for name in ["base", "top"] {
      let bench = try makeChain()
      try whileServed(bench, name, "") {
        let before = try bench.fingerprint()
        try expectRefusedAsLocked(bench, readonly: false)
        try expectRefusedAsLocked(bench, readonly: true)
        #expect(try bench.fingerprint() == before)
      }
      // What was refused holds no lock either: QEMU has closed the image, and we may have it.
      try bench.attach(["base", "top"]).close()
    }
  }

  @Test("of a QEMU that reads keep us from writing, and let us read")
  func readerSharesWithReadonly() throws {
    let bench = try makeChain()
    try whileServed(bench, "top", "-r") {
      try expectRefusedAsLocked(bench, readonly: false)
      let device = try bench.attach(["base", "top"], readonly: true)
      #expect(try device.bytes(0, 2) == [0xA1, 0xA1])
      try device.close()
    }
    try whileServed(bench, "base", "-r") { try bench.attach(["base", "top"]).close() }
  }

  @Test("include OpenVZ's on the descriptor, exclusive for writers and shared among readers")
  func descriptorLock() throws {
    let bench = try makeChain()
    try bench.attach(["base", "top"]).close()
    #expect(!bench.folder.contains("DiskDescriptor.xml.lck"))
    try bench.folder.replace("DiskDescriptor.xml", with: Array("<Parallels_disk_image/>".utf8))
    let lock = "cd '\(bench.folder.path)' && flock -n"
    func canLock(_ mode: String) throws -> Bool {
      try Tool.shell("\(lock) \(mode) DiskDescriptor.xml.lck true", check: false).status == 0
    }
    let writer = try bench.attach(["base", "top"])
    #expect(try !canLock("-s") && !canLock("-x"))
    try writer.close()
    #expect(try canLock("-x"))
    let reader = try bench.attach(["base", "top"], readonly: true)
    #expect(try canLock("-s") && !canLock("-x"))
    try reader.close()

    let holder = open(bench.path("DiskDescriptor.xml.lck"), O_RDWR)
    defer { close(holder) }
    try #require(flock(holder, LOCK_EX | LOCK_NB) == 0)
    try expectRefusedAsLocked(bench, readonly: false)
    try expectRefusedAsLocked(bench, readonly: true)
    try #require(flock(holder, LOCK_SH) == 0)
    try expectRefusedAsLocked(bench, readonly: false)
    try bench.attach(["base", "top"], readonly: true).close()
  }

  @Test("on the descriptor end with the detach, even if a process started meanwhile shares it")
  func descriptorLockIsReleased() throws {
    let bench = try makeChain()
    try bench.folder.replace("DiskDescriptor.xml", with: Array("<Parallels_disk_image/>".utf8))
    let device = try bench.attach(["base", "top"])
    // What a child has between fork and exec, when close-on-exec has not yet closed anything.
    let shared = try duplicate(ofOpen: bench.path("DiskDescriptor.xml.lck"))
    defer { close(shared) }
    try device.close()
    try bench.attach(["base", "top"]).close()
  }

  private func duplicate(ofOpen path: String) throws -> Int32 {
    for number: Int32 in 3..<4096 {
      var target = [CChar](repeating: 0, count: 512)
      let count = readlink("/proc/self/fd/\(number)", &target, target.count)
      guard count > 0 else { continue }
      let name = String(decoding: target[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self)
      if name == path { return fcntl(number, F_DUPFD_CLOEXEC, 0) }
    }
    throw Tool.Failure(description: "\(path) is not open")
  }

  @Test("make `ploop` wait while a disk with its descriptor is attached")
  func ploopWaits() throws {
    let bench = try Bench()
    try OpenVZ.initialise(bench.path("disk.hdd"), version: 1, clusterSectors: 64, size: "1M")
    let device = try bench.attach(["disk.hdd"])
    try device.put([7], at: 0)
    let before = try bench.fingerprint()
    // It would clear the in-use mark, and waits a minute for the lock before it gives up.
    let check = "timeout -s KILL 1 ploop check '\(bench.path("DiskDescriptor.xml"))'"
    #expect(try Tool.shell(check, check: false).status == 137)
    #expect(try bench.fingerprint() == before)
    try device.close()
    try Tool.shell(check)
  }

  // MARK: Helpers

  private static let readingCommands = [
    "qemu-io -r -f parallels -c 'read 0 512'", "qemu-img info -f parallels",
    "qemu-img check -f parallels",
  ]
  private static let writingCommands = ["qemu-io -f parallels -c 'read 0 512'"]

  private func makeChain() throws -> Bench {
    let bench = try Bench()
    try bench.makeImage("base", geometry, entries: [0: 1, 3: 2])
    try bench.makeImage("top", geometry, entries: [5: 1])
    return bench
  }

  private func expectLocked(_ command: String, _ path: String) throws {
    let result = try Tool.shell("\(command) '\(path)'", check: false)
    #expect(result.status != 0 && result.output.contains("lock"), "\(command): \(result.output)")
  }

  private func expectRefusedAsLocked(_ bench: Bench, readonly: Bool) throws {
    for repair in [false, true] {
      let error = #expect(throws: DeviceError.self) {
        try bench.attach(["base", "top"], readonly: readonly, repair: repair)
      }
      guard case .locked? = error?.kind else {
        Issue.record("refused as \(String(describing: error))")
        continue
      }
    }
  }

  /// Runs `body` while qemu-nbd, with `options`, has the image open.
  private func whileServed(
    _ bench: Bench, _ name: String, _ options: String, _ body: () throws -> Void
  ) throws {
    let side = try TemporaryFolder()
    // --fork returns when the image is open and the socket there.
    try Tool.shell(
      """
      qemu-nbd --fork \(options) -t -f parallels --pid-file='\(side.path)/pid' \
      -k '\(side.path)/socket' '\(bench.path(name))'
      """)
    let ended = Result { try body() }
    try Tool.shell(
      """
      process=$(cat '\(side.path)/pid') && kill "$process"
      # Nobody may wait for an orphan; a zombie holds no file any more.
      while grep -qs '^State:.[^Z]' "/proc/$process/status"; do sleep 0.01; done
      """)
    try ended.get()
  }
}
