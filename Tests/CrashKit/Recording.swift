internal import Glibc
package import PloopDevice
package import PloopFormat
package import PloopIO

/// Drives a disk step by step, tracing every system call and keeping the history beside it.
package final class Recording {
  package static let top = "top"
  package static let base = "base"

  package let folder: ImageFolder
  package let trace: IOTrace
  package private(set) var history: History
  package private(set) var initial: [UInt8] = []
  package private(set) var device: Device?
  package let hasBase: Bool
  private let geometry: Geometry
  private var values: UInt64 = 0

  /// - Parameters:
  ///   - path: an empty folder.
  ///   - hasBase: whether a lower delta with content in every other cluster lies below the top.
  package init(path: String, geometry: Geometry, hasBase: Bool) throws {
    self.geometry = geometry
    self.hasBase = hasBase
    trace = IOTrace()
    history = History(sectorCount: Int(geometry.sizeBytes) / History.sectorBytes)
    let plain = try ImageFolder(path: path)
    try Recording.make(Recording.top, geometry, in: plain)
    folder = try ImageFolder(path: path, probe: trace)
    if hasBase { try makeBase(plain) }
    initial = try content(Recording.top, in: plain)
  }

  private static func make(
    _ name: String, _ geometry: Geometry, in folder: ImageFolder
  ) throws {
    let file = try folder.create(name)
    try file.truncate(to: geometry.headerBytes)
    try file.write(AlignedBuffer(Header(new: geometry).encoded).region, at: 0)
  }

  private func makeBase(_ plain: ImageFolder) throws {
    try Recording.make(Recording.base, geometry, in: plain)
    let device = try Device.attach([
      DeltaSource(
        file: try plain.open(Recording.base, writable: true), folder: plain, name: Recording.base)
    ])
    let step = history.begin(at: -1, durable: true)
    let perCluster = Int(geometry.clusterBytes) / History.sectorBytes
    for cluster in stride(from: 0, to: Int(geometry.clusterCount), by: 2) {
      try fill(device, cluster * perCluster..<(cluster + 1) * perCluster, step: step)
    }
    history.end(step: step, at: -1)
    try device.detach(until: .after(seconds: 10))
  }

  private func content(_ name: String, in folder: ImageFolder) throws -> [UInt8] {
    let file = try folder.open(name, writable: false)
    let buffer = AlignedBuffer(count: Int(try file.size()))
    _ = try file.read(into: buffer.region, at: 0)
    return buffer.region.bytes
  }

  private var position: Int { trace.events.count }

  // MARK: Steps

  /// Attaches with safe repair; what is readable afterwards is durable from then on (rule 0).
  package func attach() throws {
    let step = history.begin(at: position, durable: true)
    var options = AttachOptions()
    options.repairSafely = true
    var sources: [DeltaSource] = []
    if hasBase {
      sources.append(
        DeltaSource(
          file: try folder.open(Recording.base, writable: false), folder: folder,
          name: Recording.base))
    }
    sources.append(
      DeltaSource(
        file: try folder.open(Recording.top, writable: true), folder: folder, name: Recording.top))
    let device = try Device.attach(sources, options)
    let buffer = AlignedBuffer(count: Int(geometry.sizeBytes))
    var holes = HoleList()
    try device.read(into: buffer.region, at: 0, holes: &holes)
    for sector in 0..<history.sectorCount {
      let bytes = buffer.region.slice(
        sector * History.sectorBytes, History.sectorBytes)
      history.record(step: step, sector: sector, value: History.value(of: bytes) ?? .max)
    }
    history.end(step: step, at: position)
    self.device = device
  }

  /// Forgets the disk without closing it, as a killed process does.
  package func kill() { device = nil }

  package func detach() throws {
    guard let device else { return }
    let step = history.begin(at: position, durable: false)
    try device.detach(until: .after(seconds: 10))
    history.end(step: step, at: position, isFlush: true)
    self.device = nil
  }

  package func flush() throws {
    guard let device else { return }
    let step = history.begin(at: position, durable: false)
    try device.flush()
    history.end(step: step, at: position, isFlush: true)
  }

  package func write(_ sectors: Range<Int>, durable: Bool = false) throws {
    guard let device else { return }
    let step = history.begin(at: position, durable: durable)
    try fill(device, sectors, step: step, durable: durable)
    history.end(step: step, at: position)
  }

  private func fill(
    _ device: Device, _ sectors: Range<Int>, step: Int, durable: Bool = false
  ) throws {
    let buffer = AlignedBuffer(count: sectors.count * History.sectorBytes)
    for (index, sector) in sectors.enumerated() {
      values += 1
      // Number and place, so that no two sectors ever share a value.
      let value = values << 20 | UInt64(sector) << 1 | 1
      History.fill(
        buffer.region.slice(index * History.sectorBytes, History.sectorBytes), with: value)
      history.record(step: step, sector: sector, value: value)
    }
    try device.write(
      buffer.region, at: UInt64(sectors.lowerBound * History.sectorBytes), durable: durable)
  }

  /// Whole clusters.
  package func discard(clusters: Range<Int>) throws {
    try zero(sectors(of: clusters)) { device, offset, length in
      try device.discard(offset: offset, length: length, durable: false)
    }
  }

  package func writeZeroes(_ sectors: Range<Int>, keepAllocated: Bool) throws {
    try zero(sectors) { device, offset, length in
      try device.writeZeroes(
        offset: offset, length: length, keepAllocated: keepAllocated, onlyIfFast: false,
        durable: false)
    }
  }

  package func sectors(of clusters: Range<Int>) -> Range<Int> {
    let perCluster = Int(geometry.clusterBytes) / History.sectorBytes
    return clusters.lowerBound
      * perCluster..<min(
        clusters.upperBound * perCluster, history.sectorCount)
  }

  private func zero(
    _ sectors: Range<Int>, _ body: (Device, UInt64, UInt64) throws -> Void
  ) throws {
    guard let device else { return }
    let step = history.begin(at: position, durable: false)
    for sector in sectors { history.record(step: step, sector: sector, value: 0) }
    try body(
      device, UInt64(sectors.lowerBound * History.sectorBytes),
      UInt64(sectors.count * History.sectorBytes))
    history.end(step: step, at: position)
  }
}
