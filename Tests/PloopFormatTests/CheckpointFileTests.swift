import Foundation
import PloopFormat
import Testing

@Suite("The file of checkpoints")
struct CheckpointFileTests {
  static let stamp = CheckpointFile.Stamp(
    inode: .max, sizeBytes: 1 << 40, seconds: -1, nanoseconds: 999_999_999,
    header: (0..<64).map { UInt8($0) })

  /// A disk of 1 GiB in 1024 regions of 1 MiB.
  static let sample = CheckpointFile(
    state: .open, diskBytes: 1 << 30, regionShift: 20, chain: [stamp, stamp],
    checkpoints: [
      .init(name: "cp-1", createdAt: 1.5, granularityShift: 16, bits: [1, 0, 0x80]),
      .init(name: "cp-2", createdAt: 2e9, granularityShift: 12, parent: "cp-1"),
      .init(
        name: "cp-3", createdAt: 0, granularityShift: 26, parent: "cp-2",
        inconsistency: "the disk went back to a snapshot", request: "5f3a the-key"),
    ])

  /// ``sample`` in version 1: its head and its body.
  private static let firstHead =
    "cGxvb3BkQ1ABAAAAAQAAAAAAAEAAAAAAFAAAAAAAAABXAQAAAAAAAKx5tLD4+P8uPi+LUrIIP6b1U6Xx95Q5tA+7qzxnYltm"
  private static let firstBody =
    "AgAAAP//////////AAAAAAABAAD////////////JmjsAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAh"
    + "IiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4///////////8AAAAAAAEAAP///////////8maOwABAgMEBQYH"
    + "CAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8DAAAABAAAAGNw"
    + "LTEAAAAAAAD4PxAAAAAAAAAAAAAAAAMAAAAAAAAAAQCABAAAAGNwLTIAAAAAZc3dQQwAAAAEAAAAY3AtMQAAAAAA"
    + "AAAAAAAAAAQAAABjcC0zAAAAAAAAAAAaAAAABAAAAGNwLTIgAAAAdGhlIGRpc2sgd2VudCBiYWNrIHRvIGEgc25h"
    + "cHNob3QAAAAAAAAAAA=="

  private func fault(_ bytes: [UInt8]) -> String? {
    do throws(CheckpointFile.Fault) {
      _ = try CheckpointFile.parse(bytes)
      return nil
    } catch { return error.detail }
  }

  @Test("What is written is read again, with no region marked")
  func roundTrip() throws {
    for file in [
      Self.sample,
      CheckpointFile(state: .closed, diskBytes: 512, regionShift: 16, chain: [], checkpoints: []),
    ] {
      let (read, isMarked) = try CheckpointFile.parse(file.encoded)
      #expect(read == file)
      #expect(isMarked == [Bool](repeating: false, count: file.regionCount))
    }
  }

  @Test("A file of version 1, which knew no requests, is read as it was written then")
  func firstVersion() throws {
    let head = try #require(Data(base64Encoded: Self.firstHead))
    let body = try #require(Data(base64Encoded: Self.firstBody))
    let filling = [UInt8](repeating: 0, count: Int(CheckpointFile.marksOffset) - head.count)
    let marks = [UInt8](repeating: CheckpointFile.clean, count: Self.sample.marksBytes)
    let (read, _) = try CheckpointFile.parse(Array(head) + filling + marks + Array(body))
    var wanted = Self.sample
    for index in wanted.checkpoints.indices { wanted.checkpoints[index].request = nil }
    #expect(read == wanted)
  }

  @Test("Clean ends of bitmaps take no room")
  func trimmed() throws {
    var file = Self.sample
    file.checkpoints[0].bits += [0, 0, 0]
    #expect(try CheckpointFile.parse(file.encoded).file == Self.sample)
  }

  @Test("A region counts as written unless its byte is exactly the one for clean")
  func marks() throws {
    var bytes = Self.sample.encoded
    let marks = Int(CheckpointFile.marksOffset)
    bytes[marks] = CheckpointFile.written
    bytes[marks + 7] = 0
    bytes[marks + 1023] = CheckpointFile.clean ^ 1
    let marked = try CheckpointFile.parse(bytes).isMarked
    #expect(marked.indices.filter { marked[$0] } == [0, 7, 1023])
    #expect(marked.count == 1024)
  }

  @Test("One flipped bit of head or body, and every length but the right one, is damage")
  func damaged() {
    let bytes = Self.sample.encoded
    let body = 4096 + 4096
    for offset in Array(0..<72) + Array(body..<bytes.count) {
      for bit in 0..<8 {
        var changed = bytes
        changed[offset] ^= 1 << UInt8(bit)
        #expect(fault(changed) != nil, "bit \(bit) of byte \(offset)")
      }
    }
    for length in Array(stride(from: 0, to: bytes.count, by: 37)) + [bytes.count - 1] {
      #expect(fault(Array(bytes.prefix(length))) != nil, "\(length) bytes")
    }
    #expect(fault(bytes + [0]) != nil)
  }

  /// A file whose checksums are right, whatever else is wrong with it.
  private func sealed(_ bytes: [UInt8], body: Int = 4096 + 4096) -> [UInt8] {
    var bytes = bytes
    bytes.replaceSubrange(40..<56, with: MD5.digest(bytes[body...]))
    bytes.replaceSubrange(56..<72, with: MD5.digest(bytes[..<56]))
    return bytes
  }

  @Test("What makes no sense is damage even where the checksums are right")
  func nonsense() throws {
    let good = Self.sample.encoded
    #expect(fault(sealed(good)) == nil)
    // Offsets of the body: 2 deltas of 92 bytes behind a count, then the count of checkpoints.
    let checkpoints = 4096 + 4096 + 4 + 2 * 92
    let changes: [(String, Int, UInt8)] = [
      ("version", 8, 3), ("version", 8, 0), ("state", 12, 2), ("disk", 23, 0xFF),
      ("region size", 24, 15),
      ("region size", 24, 27), ("deltas", 4096 + 4096 + 1, 2), ("checkpoints", checkpoints + 2, 1),
      ("name's length", checkpoints + 4, 0), ("name's length", checkpoints + 6, 1),
      ("name's text", checkpoints + 8, 0xFF), ("time", checkpoints + 19, 0x7F),
      ("granularity", checkpoints + 20, 11), ("granularity", checkpoints + 20, 27),
    ]
    for (what, offset, value) in changes {
      var changed = good
      changed[offset] = value
      // NaN or infinity takes more than one byte.
      if what == "time" { changed[offset - 1] = 0xF0 }
      #expect(fault(sealed(changed)) != nil, "\(what)")
    }
    var twins = Self.sample
    twins.checkpoints[1].name = "cp-1"
    #expect(fault(twins.encoded) == "it has two checkpoints called cp-1")
    var long = Self.sample
    long.checkpoints[2].bits = [0, 0, 1]
    #expect(fault(long.encoded) == "the checkpoint cp-3 has more bits than the disk")
    #expect(fault(sealed(good + [0])) != nil)
  }

  @Test("Hostile lengths are refused before anything of their size is made")
  func hostile() {
    var bytes = Self.sample.encoded
    // A disk of 16 EiB with more regions than anybody could mark.
    bytes.replaceSubrange(16..<24, with: [UInt8](repeating: 0xFF, count: 8))
    #expect(fault(sealed(bytes)) == "its head makes no sense")
    bytes = Self.sample.encoded
    bytes.replaceSubrange(32..<40, with: [UInt8](repeating: 0xFF, count: 8))
    #expect(fault(sealed(bytes))?.contains("not what its head says") == true)
  }

  @Test("A reason that is too long is cut, and stays text")
  func longText() throws {
    var file = Self.sample
    file.checkpoints[2].inconsistency = String(repeating: "ö", count: 2000)
    let read = try CheckpointFile.parse(file.encoded).file.checkpoints[2].inconsistency
    #expect(read?.allSatisfy { $0 == "ö" } == true)
    #expect((1...1024).contains(read?.utf8.count ?? 0))
  }

  @Test(
    "Regions are about a thousandth of a disk, from 64 KiB to 64 MiB; a disk over 64 TiB has none",
    arguments: [
      (512, 16), (64 << 20, 16), (64 << 20 + 1, 17), (10 << 30, 24), (1 << 40, 26),
      (64 << 40, 26), (64 << 40 + 1, nil), (UInt64.max, nil),
    ] as [(UInt64, Int?)])
  func regions(diskBytes: UInt64, shift: Int?) {
    #expect(CheckpointFile.regionShift(forDiskBytes: diskBytes) == shift)
  }
}
