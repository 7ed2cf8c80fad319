import PloopFormat
import Testing

@Suite("The header of an image")
struct HeaderTests {
  private static let geometries = [
    Geometry(version: .v1, clusterShift: 15, sizeBytes: 640 << 10),
    Geometry(version: .v2, clusterShift: 12, sizeBytes: 1 << 30),
    Geometry(version: .v2, clusterShift: 20, sizeBytes: (1 << 40) + 512),
    Geometry(version: .v2, clusterShift: 26, sizeBytes: 50 << 40),
    Geometry(version: .v1, clusterShift: 12, sizeBytes: 4096, entryCount: 2000),
  ]

  @Test("has its fields where the format has them, as little-endian numbers")
  func fieldsAreInPlace() throws {
    var header = Header(new: Geometry(version: .v2, clusterShift: 16, sizeBytes: 640 << 10))
    header.heads = 0x0403_0201
    header.cylinders = 0x0807_0605
    header.sizeSectors = 0x0102_0304_0506_0708
    header.inUse = Header.InUse.open
    header.flags = 0x2423_2221
    header.extensionSector = 0x3837_3635_3433_3231
    let bytes =
      Array("WithouFreSpacExt".utf8) + [
        2, 0, 0, 0,  // type
        1, 2, 3, 4,  // heads
        5, 6, 7, 8,  // cylinders
        128, 0, 0, 0,  // sectors of a cluster
        10, 0, 0, 0,  // entries
        8, 7, 6, 5, 4, 3, 2, 1,  // sectors of the disk
        0x59, 0x6E, 0x6F, 0x74,  // in use: "Ynot"
        128, 0, 0, 0,  // first block
        0x21, 0x22, 0x23, 0x24,  // flags
        0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38,  // extension
      ]
    #expect(header.encoded == bytes)
    #expect(try Header(parsing: bytes) == header)
  }

  @Test("of a new image describes the disk it was made for", arguments: geometries)
  func newHeader(geometry: Geometry) throws {
    let header = Header(new: geometry)
    #expect(header.encoded.count == Header.byteCount)
    let parsed = try Header(parsing: header.encoded)
    #expect(parsed == header)
    #expect(parsed.isClean)
    #expect(parsed.flags == Header.Flags.empty)
    #expect(try parsed.geometry(fileBytes: geometry.headerBytes) == geometry)
  }

  @Test("says version 1 by another signature, and ignores what follows its 32 bits of size")
  func version1Size() throws {
    var bytes = Header(
      new: Geometry(version: .v1, clusterShift: 16, sizeBytes: 640 << 10)
    ).encoded
    #expect(Array(bytes[..<16]) == Array("WithoutFreeSpace".utf8))
    bytes[40] = 1
    let header = try Header(parsing: bytes)
    #expect(header.version == .v1)
    #expect(try header.geometry(fileBytes: 1 << 16).sizeBytes == 640 << 10)
  }

  @Test(
    "counts as closed only with one of the two marks that closing software writes",
    arguments: [
      (mark: UInt32(0), isClean: true), (0x312E_3276, true), (0x746F_6E59, false), (1, false),
    ])
  func marks(mark: UInt32, isClean: Bool) throws {
    var header = Header(new: Geometry(version: .v2, clusterShift: 16, sizeBytes: 640 << 10))
    header.inUse = mark
    #expect(try Header(parsing: header.encoded).isClean == isClean)
  }

  @Test("that QEMU or OpenVZ would write stays acceptable")
  func acceptable() throws {
    let harmless: [(inout Header) -> Void] = [
      { $0.flags = 0 }, { $0.flags = 0xFFFF_FFFD }, { $0.heads = 0 }, { $0.cylinders = .max },
      // A conversion that was finished but whose flag stayed.
      { $0.flags = Header.Flags.converting },
      // Longer than the disk needs, and a disk that ends inside a cluster.
      { $0.entryCount = 16368 }, { $0.sizeSectors = 1279 },
      { $0.extensionSector = 0xFFFF_FFFF_FFFF_FFFF },
    ]
    for change in harmless {
      var header = Header(new: Geometry(version: .v2, clusterShift: 16, sizeBytes: 640 << 10))
      change(&header)
      #expect(throws: Never.self) {
        try Header(parsing: header.encoded).geometry(fileBytes: 1 << 16)
      }
    }
  }
}
