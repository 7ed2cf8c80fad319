import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

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

  @Test("does not happen to what differs from our own images and harms nobody", arguments: 0..<6)
  func accepted(number: Int) throws {
    let bench = try Bench()
    let version: ImageVersion = number == 5 ? .v1 : .v2
    try bench.makeImage("image", Refusal.sample(version), entries: [0: 1, 5: 3, 9: 2])
    switch number {
    case 0: try bench.changeHeader("image") { $0.flags = Header.Flags.empty }
    case 1: try bench.changeHeader("image") { $0.flags = 0xFFFF_FFF0 }
    case 2: try bench.truncate("image", to: 4 << 16 + 512)
    case 3: try bench.truncate("image", to: 5 << 16)
    case 4: try bench.changeHeader("image") { $0.sizeSectors -= 127 }
    default: try bench.overwrite("image", at: 40, with: [1])
    }
    let sizeBytes: UInt64 = number == 4 ? 640 << 10 - 127 * 512 : 640 << 10
    try QEMU.convertToRaw(bench.path("image"), bench.path("before"))
    for readonly in [true, false] {
      let before = try bench.fingerprint()
      let device = try bench.attach(["image"], readonly: readonly)
      #expect(device.geometry.sizeBytes == sizeBytes)
      #expect(device.repairs.isEmpty)
      try device.copy(to: bench, "read\(readonly)")
      try device.close()
      try expectSameBytes(bench.path("before"), bench.path("read\(readonly)"))
      if readonly {
        try bench.folder.unlink("readtrue")
        #expect(try bench.fingerprint() == before)
      }
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
