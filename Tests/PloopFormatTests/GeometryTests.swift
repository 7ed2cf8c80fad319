import PloopFormat
import Testing

@Suite("The geometry of a disk")
struct GeometryTests {
  @Test("names physical clusters by sectors in version 1 and by clusters in version 2")
  func entries() {
    let v1 = Geometry(version: .v1, clusterShift: 20, sizeBytes: 1 << 30)
    let v2 = Geometry(version: .v2, clusterShift: 20, sizeBytes: 1 << 30)
    #expect(v1.entry(of: 7) == 7 * 2048)
    #expect(v2.entry(of: 7) == 7)
    #expect(v1.physical(of: 7 * 2048, cluster: 0, fileClusters: 8) == .success(7))
    #expect(v2.physical(of: 7, cluster: 0, fileClusters: 8) == .success(7))
  }

  @Test("follows no entry that leaves the data clusters of the file")
  func badEntries() {
    func fault(_ geometry: Geometry, _ entry: UInt32) -> IndexFault.Kind? {
      switch geometry.physical(of: entry, cluster: 5, fileClusters: 8) {
      case .success: return nil
      case .failure(let fault):
        #expect(fault.cluster == 5 && fault.entry == entry)
        return fault.kind
      }
    }
    let v1 = Geometry(version: .v1, clusterShift: 15, sizeBytes: 300 << 20)
    let v2 = Geometry(version: .v2, clusterShift: 15, sizeBytes: 300 << 20)
    #expect(v1.headerClusters == 2 && v2.headerClusters == 2)
    #expect(fault(v2, 1) == .insideHeader && fault(v2, 2) == nil)
    #expect(fault(v2, 7) == nil && fault(v2, 8) == .outsideFile)
    #expect(fault(v2, .max) == .reserved && fault(v2, .max - 1) == .outsideFile)
    #expect(fault(v1, 64) == .insideHeader && fault(v1, 128) == nil)
    #expect(fault(v1, 129) == .unaligned && fault(v1, 1) == .unaligned)
    #expect(fault(v1, 7 * 64) == nil && fault(v1, 8 * 64) == .outsideFile)
    #expect(fault(v1, .max) == .reserved)
  }

  @Test(
    "has as many header clusters as the index needs, to the entry",
    arguments: Geometry.clusterShifts)
  func headerClusters(shift: Int) {
    func geometry(_ entries: UInt64) -> Geometry {
      Geometry(version: .v2, clusterShift: shift, sizeBytes: entries << UInt64(shift))
    }
    let perCluster: UInt64 = 1 << UInt64(shift - 2)
    #expect(geometry(1).headerClusters == 1)
    #expect(geometry(perCluster - 16).headerClusters == 1)
    #expect(geometry(perCluster - 15).headerClusters == 2)
    #expect(geometry(2 * perCluster - 16).headerClusters == 2)
    #expect(geometry(2 * perCluster - 15).headerClusters == 3)
    #expect(geometry(2 * perCluster - 15).headerBytes == 3 << UInt64(shift))
  }

  @Test("holds what one header cluster is known to hold")
  func knownSizes() {
    let known: [(shift: Int, entries: UInt64)] = [
      (12, 1008), (15, 8176), (16, 16368), (17, 32752), (20, 262_128), (22, 1_048_560),
    ]
    for (shift, entries) in known {
      let size = entries << UInt64(shift)
      let full = Geometry(version: .v2, clusterShift: shift, sizeBytes: size)
      let more = Geometry(version: .v2, clusterShift: shift, sizeBytes: size + 512)
      #expect(full.headerClusters == 1 && more.headerClusters == 2)
    }
  }

  @Test("counts a partial last cluster as one")
  func partialCluster() {
    for (size, clusters) in [(512, 1), (65536, 1), (66048, 2), (130_560, 2), (131_072, 2)] {
      let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: UInt64(size))
      #expect(geometry.clusterCount == UInt64(clusters))
      #expect(geometry.entryCount == UInt64(clusters))
    }
  }

  @Test("cuts the index into pages: 1,008 entries behind the header, then 1,024 each")
  func pages() {
    let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 2500 << 12)
    #expect(geometry.pageCount == 3)
    #expect(geometry.clusters(inPage: 0) == 0..<1008)
    #expect(geometry.clusters(inPage: 1) == 1008..<2032)
    #expect(geometry.clusters(inPage: 2) == 2032..<2500)
    #expect(geometry.clusters(inPage: 3).isEmpty)
    let positions: [(cluster: UInt64, page: Int, slot: Int)] = [
      (0, 0, 16), (1007, 0, 1023), (1008, 1, 0), (2031, 1, 1023), (2032, 2, 0), (2499, 2, 467),
    ]
    for (cluster, page, slot) in positions {
      #expect(Geometry.position(of: cluster) == (page, slot))
      #expect(geometry.clusters(inPage: page).contains(cluster))
    }
    #expect(Geometry(version: .v2, clusterShift: 12, sizeBytes: 1008 << 12).pageCount == 1)
    #expect(Geometry(version: .v2, clusterShift: 12, sizeBytes: 1009 << 12).pageCount == 2)
  }

  @Test("has the largest size that its version can say", arguments: Geometry.clusterShifts)
  func sizeLimits(shift: Int) {
    let clusterBytes: UInt64 = 1 << UInt64(shift)
    let v1 = Geometry.sizeLimit(version: .v1, clusterShift: shift)
    // The last whole cluster below 2^32 sectors, which 32 bits can no longer say.
    #expect(v1 == 2 << 40 - clusterBytes)
    let v2 = Geometry.sizeLimit(version: .v2, clusterShift: shift)
    #expect(v2 == 0xFFFF_FFFD * clusterBytes)
    let largest = Geometry(version: .v2, clusterShift: shift, sizeBytes: v2)
    #expect(largest.clusterCount == 0xFFFF_FFFD)
    #expect(Geometry.position(of: 0xFFFF_FFFC) == (1 << 22, 12))
  }

  @Test("can name clusters up to the last entry below the reserved one")
  func physicalLimits() {
    let v1 = Geometry(version: .v1, clusterShift: 20, sizeBytes: 1 << 30)
    #expect(v1.physicalLimit == (2 << 40) / (1 << 20) - 1)
    #expect(v1.entry(of: v1.physicalLimit) == 0xFFFF_F800)
    let v2 = Geometry(version: .v2, clusterShift: 20, sizeBytes: 1 << 30)
    #expect(v2.physicalLimit == 0xFFFF_FFFE)
    #expect(v2.entry(of: v2.physicalLimit) == 0xFFFF_FFFE)
    #expect(
      v2.physical(of: 0xFFFF_FFFE, cluster: 0, fileClusters: 1 << 32) == .success(0xFFFF_FFFE))
  }
}
