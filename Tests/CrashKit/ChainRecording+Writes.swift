internal import PloopDevice
internal import PloopIO

// What guests write: each sector of each write has a value of its own.

extension ChainRecording {
  struct SectorValue: Sendable {
    let sector: Int
    let value: UInt64
  }

  package func write(_ sectors: Range<Int>, durable: Bool = false) throws {
    try write(newValues(sectors), durable: durable)
  }

  func write(_ values: [SectorValue], durable: Bool = false) throws {
    let step = history.begin(.change(durable: durable), at: position)
    values.forEach { history.record(step: step, sector: $0.sector, value: $0.value) }
    try device?.write(Self.region(values), at: Self.offset(values), durable: durable)
    history.end(step: step, at: position)
  }

  package func zero(clusters: Range<Int>) throws {
    let step = history.begin(.change(durable: false), at: position)
    let values = zeroes(clusters)
    values.forEach { history.record(step: step, sector: $0.sector, value: $0.value) }
    try device?.writeZeroes(
      offset: Self.offset(values), length: UInt64(values.count * History.sectorBytes),
      keepAllocated: false, onlyIfFast: false,
      durable: false)
    history.end(step: step, at: position)
  }

  /// Zeroes as a guest writes them that knows nothing better.
  func writeZeroBytes(clusters: Range<Int>) throws { try write(zeroes(clusters)) }

  /// What the disk holds once the sectors are written.
  func newValues(_ sectors: Range<Int>) -> [SectorValue] {
    sectors.map { sector in
      current[sector] = newValue(of: sector)
      return SectorValue(sector: sector, value: current[sector])
    }
  }

  func newValue(of sector: Int) -> UInt64 {
    lastValue += 1
    return lastValue << 20 | UInt64(sector) << 1 | 1
  }

  func zeroes(_ clusters: Range<Int>) -> [SectorValue] {
    (clusters.lowerBound * Self.perCluster..<clusters.upperBound * Self.perCluster).map { sector in
      current[sector] = 0
      return SectorValue(sector: sector, value: 0)
    }
  }

  static func offset(_ values: [SectorValue]) -> UInt64 {
    UInt64(values[0].sector * History.sectorBytes)
  }

  /// The bytes of a write.
  static func region(_ values: [SectorValue]) -> ByteRegion {
    let region = AlignedBuffer(count: values.count * History.sectorBytes).region
    for (index, value) in values.enumerated() {
      History.fill(
        region.slice(index * History.sectorBytes, History.sectorBytes), with: value.value)
    }
    return region
  }
}
