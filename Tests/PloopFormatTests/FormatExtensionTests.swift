import PloopFormat
import Testing

@Suite("The format extension")
struct FormatExtensionTests {
  static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 4 << 20)

  /// A cluster of 4 KiB with one dirty bitmap; what tests change is changed before the checksum.
  struct Cluster {
    var featureMagic = FormatExtension.dirtyBitmapMagic
    var flags: UInt64 = 0
    var size: UInt32 = 40
    var sizeSectors: UInt64 = 8192
    var granularity: UInt32 = 128
    var parts: [UInt64] = [24]
    var partCount: UInt32 = 1

    var bytes: [UInt8] {
      var bytes: [UInt8] = []
      func append<Number: FixedWidthInteger>(_ number: Number) {
        bytes += (0..<MemoryLayout<Number>.size).map {
          UInt8(truncatingIfNeeded: number >> Number(8 * $0))
        }
      }
      append(featureMagic)
      append(flags)
      append(size)
      append(0 as UInt32)
      append(sizeSectors)
      bytes += 0..<16
      append(granularity)
      append(partCount)
      parts.forEach { append($0) }
      bytes += [UInt8](repeating: 0, count: 4096 - 24 - bytes.count)
      let checked = bytes
      bytes = []
      append(FormatExtension.magic)
      return bytes + MD5.digest(checked[...]) + checked
    }
  }

  private func fault(_ change: (inout Cluster) -> Void) -> String? {
    var cluster = Cluster()
    change(&cluster)
    do throws(FormatExtension.Fault) {
      _ = try FormatExtension(parsing: cluster.bytes, of: Self.geometry)
      return nil
    } catch {
      return error.detail
    }
  }

  @Test("A bitmap's name, granularity and places are read; parts without bits have no place")
  func bitmap() throws {
    let read = try FormatExtension(parsing: Cluster().bytes, of: Self.geometry)
    #expect(read.bitmaps.map(\.id) == ["00010203-0405-0607-0809-0a0b0c0d0e0f"])
    #expect(read.bitmaps.map(\.granularityBytes) == [65536])
    #expect(read.bitmaps.map(\.sectors) == [[24]])
    for constant: UInt64 in [0, 1] {
      var cluster = Cluster()
      cluster.parts = [constant]
      let read = try FormatExtension(parsing: cluster.bytes, of: Self.geometry)
      #expect(read.bitmaps.first?.sectors == [])
    }
  }

  @Test("What is written is read again: several bitmaps, with parts of each kind")
  func roundTrip() throws {
    let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 300 << 20)
    #expect(FormatExtension.partCount(granularityBytes: 4096, of: geometry) == 3)
    let written = FormatExtension([
      .init(
        id: "00010203-0405-0607-0809-0a0b0c0d0e0f", granularityBytes: 4096,
        parts: [.dirty, .stored(sector: 800), .clean]),
      .init(
        id: "ffffffff-0405-0607-0809-0a0b0c0d0e0f", granularityBytes: 65536,
        parts: [.stored(sector: 808)]),
    ])
    let cluster = try #require(written.encoded(of: geometry))
    #expect(cluster.count == 4096)
    #expect(try FormatExtension(parsing: cluster, of: geometry) == written)
  }

  @Test("The bytes of a written bitmap are those of the format")
  func encodedBytes() throws {
    let written = FormatExtension([
      .init(
        id: "00010203-0405-0607-0809-0a0b0c0d0e0f", granularityBytes: 65536,
        parts: [.stored(sector: 24)])
    ])
    #expect(written.encoded(of: Self.geometry) == Cluster().bytes)
  }

  @Test("A name that is no UUID, and heads that do not fit into a cluster, are not written")
  func unwritable() {
    for name in ["cp-1", "", "00010203-0405-0607-0809-0A0B0C0D0E0F", "00010203-0405-0607-0809"] {
      #expect(!FormatExtension.canName(name))
      let written = FormatExtension([.init(id: name, granularityBytes: 65536, parts: [.clean])])
      #expect(written.encoded(of: Self.geometry) == nil)
    }
    let id = "00010203-0405-0607-0809-0a0b0c0d0e0f"
    let one = FormatExtension.DirtyBitmap(id: id, granularityBytes: 65536, parts: [.clean])
    // 64 bytes each, and 24 of the end: 63 fill the cluster but for 16.
    let fitting = FormatExtension([FormatExtension.DirtyBitmap](repeating: one, count: 62))
    #expect(fitting.encoded(of: Self.geometry) != nil)
    let full = FormatExtension([FormatExtension.DirtyBitmap](repeating: one, count: 63))
    #expect(full.encoded(of: Self.geometry) != nil)
    let tooMany = FormatExtension([FormatExtension.DirtyBitmap](repeating: one, count: 64))
    #expect(tooMany.encoded(of: Self.geometry) == nil)
  }

  @Test("An extension without features is good and empty")
  func empty() throws {
    var cluster = Cluster()
    cluster.featureMagic = 0
    #expect(try FormatExtension(parsing: cluster.bytes, of: Self.geometry).bitmaps.isEmpty)
  }

  @Test("Whatever in a feature is not as it must be is a fault, in words")
  func damaged() {
    #expect(fault { $0.featureMagic += 1 } == "it has a feature that nobody knows")
    #expect(fault { $0.flags = 1 } == "it has a feature that nobody knows")
    #expect(fault { $0.size = 4096 } == "a feature ends beyond the cluster")
    #expect(fault { $0.size = .max } == "a feature ends beyond the cluster")
    #expect(fault { $0.size = 36 } == "a feature ends beyond the cluster")
    #expect(fault { $0.sizeSectors = 8193 } == "a dirty bitmap is for a disk of another size")
    for granularity: UInt32 in [0, 3, .max] {
      #expect(fault { $0.granularity = granularity }?.contains("granularity") == true)
    }
    for count: UInt32 in [0, 2, .max] {
      #expect(fault { $0.partCount = count }?.contains("do not cover the disk") == true)
    }
  }

  @Test(
    "One flipped bit anywhere breaks the magic or the checksum", arguments: [0, 7, 8, 23, 24, 4095])
  func flipped(offset: Int) {
    var bytes = Cluster().bytes
    bytes[offset] ^= 0x10
    #expect(throws: FormatExtension.Fault.self) {
      try FormatExtension(parsing: bytes, of: Self.geometry)
    }
  }

  @Test(
    "The checksum is that of RFC 1321's test suite",
    arguments: [
      ("", "d41d8cd98f00b204e9800998ecf8427e"), ("a", "0cc175b9c0f1b6a831c399e269772661"),
      ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
      (
        "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
        "57edf4a22be3c955ac49da2e2107b67a"
      ),
    ])
  func checksum(text: String, expected: String) {
    let digits = MD5.digest(Array(text.utf8)[...]).map { byte in
      byte < 16 ? "0" + String(byte, radix: 16) : String(byte, radix: 16)
    }
    #expect(digits.joined() == expected)
  }
}
