internal import PloopIO
internal import TestSupport

/// How long a check of one large index takes.
extension Suite {
  private enum Checker: String, CaseIterable {
    case ploopd = "ploopd image check"
    case qemu = "qemu-img check"
    case openVZ = "ploop check -c"
  }

  static let clusterBytes = 64 << 10

  /// Of a disk a thousand times as large as the working set, 1 TiB by default, in clusters of 64 KiB of
  /// which every one is mapped. It has no bytes of data, which nobody reads for this; on a file system in
  /// memory, where OpenVZ's tool does not mind that.
  func checkRow() throws {
    let memory = try TemporaryFolder(beneath: "/dev/shm")
    let path = "\(memory.path)/image.hds"
    let clusters = settings.spanBytes * 1024 / Suite.clusterBytes
    try Tool.shell(
      """
      '\(settings.program)' image create '\(path)' --size \(settings.spanBytes >> 20)G \
        --cluster-size \(Suite.clusterBytes >> 10)K
      """)
    try map(clusters, in: try ImageFolder(path: memory.path).open("image.hds", writable: true))
    try measure(
      "check", "check of a disk of \(settings.spanBytes >> 20) GiB, all of it mapped", unit: "ms",
      [
        Report.Goal(
          of: Checker.ploopd.rawValue, against: Checker.qemu.rawValue, ratio: 1, atMost: true),
        Report.Goal(
          of: Checker.ploopd.rawValue, against: Checker.openVZ.rawValue, ratio: 1, atMost: true),
      ], of: Checker.allCases, name: \.rawValue
    ) { checker, _ in
      let start = monotonicNanoseconds()
      switch checker {
      case .ploopd: try Tool.shell("'\(settings.program)' image check '\(path)'", seconds: 300)
      case .qemu: try Tool.shell("qemu-img check -q -f parallels '\(path)'", seconds: 300)
      case .openVZ:
        try Tool.shell("\(OpenVZ.padding) ploop check -f -c -r '\(path)'", seconds: 300)
      }
      return Report.Sample(value: Double(monotonicNanoseconds() - start) / 1e6)
    }
  }

  /// Every cluster lies behind the one before it.
  func map(_ clusters: Int, in file: ImageFile) throws {
    let clusterBytes = Suite.clusterBytes
    let header = ((16 + clusters) * 4 + clusterBytes - 1) / clusterBytes
    try file.truncate(to: UInt64(header + clusters) * UInt64(clusterBytes))
    let chunk = AlignedBuffer(count: 1 << 20).region
    var cluster = 0
    while cluster < clusters {
      let count = min(chunk.count / 4, clusters - cluster)
      for index in 0..<count {
        chunk.setLittleEndian(UInt32(header + cluster + index), at: index * 4)
      }
      try file.write(chunk.slice(0, count * 4), at: UInt64(64 + cluster * 4))
      cluster += count
    }
    // It is not empty any more.
    try file.write(AlignedBuffer([0, 0, 0, 0]).region, at: 52)
  }
}
