import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// What is other than in an image of ours, and no reason to refuse it.
struct Oddity: Sendable, CustomTestStringConvertible {
  let testDescription: String
  var version = ImageVersion.v2
  var sizeBytes: UInt64 = 640 << 10
  let prepare: @Sendable (Bench) throws -> Void

  static let all = [
    Oddity(testDescription: "a flag that says the image is empty") {
      try $0.changeHeader("image") { $0.flags = Header.Flags.empty }
    },
    Oddity(testDescription: "flags that nobody has given a meaning") {
      try $0.changeHeader("image") { $0.flags = 0xFFFF_FFF0 }
    },
    Oddity(testDescription: "the flag of a conversion that has ended") {
      try $0.changeHeader("image") { $0.flags = Header.Flags.converting }
    },
    Oddity(testDescription: "a sector behind the last cluster") {
      try $0.truncate("image", to: 4 << 16 + 512)
    },
    Oddity(testDescription: "a cluster behind the last one") {
      try $0.truncate("image", to: 5 << 16)
    },
    Oddity(testDescription: "a disk of 1,153 sectors", sizeBytes: 1153 * 512) {
      try $0.changeHeader("image") { $0.sizeSectors = 1153 }
    },
    Oddity(testDescription: "a bit in the unused half of the size", version: .v1) {
      try $0.overwrite("image", at: 40, with: [1])
    },
  ]
}

@Suite("An attach that is refused")
struct RefusalTests {
  @Test("says why, and changes not a byte of any file", arguments: Refusal.all)
  func refused(refusal: Refusal) throws {
    let bench = try refusal.make()
    let before = try bench.fingerprint()
    for readonly in [false, true] {
      for repair in refusal.isMendable ? [false] : [false, true] {
        let error = #expect(throws: DeviceError.self) {
          try attach(bench, refusal, readonly: readonly, repair: repair)
        }
        #expect(error.flatMap(reason) == refusal.reason)
      }
    }
    #expect(try bench.fingerprint() == before)
  }

  @Test(
    "for a bad entry stays refused by safe repair when the image is marked as in use too",
    arguments: Refusal.entries)
  func corruptAndUnclean(refusal: Refusal) throws {
    let bench = try refusal.make()
    for name in refusal.names { try bench.changeHeader(name) { $0.inUse = Header.InUse.open } }
    let before = try bench.fingerprint()
    for readonly in [false, true] {
      let unrepaired = #expect(throws: DeviceError.self) {
        try attach(bench, refusal, readonly: readonly, repair: false)
      }
      #expect(unrepaired.flatMap(reason) == .format(.unclean, level: 0))
      let repaired = #expect(throws: DeviceError.self) {
        try attach(bench, refusal, readonly: readonly, repair: true)
      }
      #expect(repaired.flatMap(reason) == refusal.reason)
    }
    #expect(try bench.fingerprint() == before)
  }

  @Test("happens for every code of the format, and for every fault of an entry")
  func everyCode() {
    var codes: Set<FormatError.Code> = []
    var faults: Set<IndexFault.Kind> = []
    for refusal in Refusal.all {
      guard case .format(let code, _, let fault) = refusal.reason else { continue }
      codes.insert(code)
      if let fault { faults.insert(fault) }
    }
    #expect(codes == Set(FormatError.Code.allCases))
    // A slot behind the disk names nothing: it is mended (`indexTailSet`).
    #expect(faults == Set(IndexFault.Kind.allCases).subtracting([.beyondDisk]))
  }

  @Test(
    "does not happen to what differs from our own images and harms nobody", arguments: Oddity.all)
  func accepted(oddity: Oddity) throws {
    let bench = try Bench()
    try bench.makeImage("image", Refusal.sample(oddity.version), entries: [0: 1, 5: 3, 9: 2])
    try oddity.prepare(bench)
    try QEMU.convertToRaw(bench.path("image"), bench.path("before"))
    for readonly in [true, false] {
      let before = try bench.fingerprint()
      let device = try bench.attach(["image"], readonly: readonly)
      #expect(device.geometry.sizeBytes == oddity.sizeBytes)
      #expect(device.repairs.isEmpty)
      try device.copy(to: bench, "read")
      try device.close()
      try expectSameBytes(bench.path("before"), bench.path("read"))
      try bench.folder.unlink("read")
      if readonly { #expect(try bench.fingerprint() == before) }
    }
    #expect(try bench.sizeBytes("image") == 4 << 16)
    try QEMU.expectSound(bench.path("image"))
    try OpenVZ.expectSound(bench.path("image"))
  }

  private func attach(
    _ bench: Bench, _ refusal: Refusal, readonly: Bool, repair: Bool
  ) throws -> Device {
    try bench.attach(
      refusal.names, rawBase: refusal.rawBase, readonly: readonly, repair: repair)
  }

  private func reason(_ error: DeviceError) -> Refusal.Reason? {
    switch error.kind {
    case .format(let format, let level):
      .format(format.code, level: level, fault: format.fault?.kind)
    case .rawNotBase: .rawNotBase
    case .sameFileTwice: .sameFileTwice
    default: nil
    }
  }
}
