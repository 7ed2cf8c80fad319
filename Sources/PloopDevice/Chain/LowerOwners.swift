internal import PloopFormat
internal import PloopIO

/// Tells whether any delta below a level maps a cluster, by reading their own indexes.
///
/// The merged map has forgotten the owners that others shadow, and unmapping a cluster from the
/// top would bring such an old content back. What a delta had it counts as having, whatever its file says just now.
/// One page of answers is kept, since clusters are asked in order.
struct LowerOwners {
  private let lower: ArraySlice<Delta>
  private let index: IndexWriter?
  private let geometry: Geometry
  private var page = -1
  private var owned = Bitmap(count: 0)

  /// - Parameter level: of the delta above those that are asked.
  init(below level: Int, of chain: DeltaChain) {
    lower = chain.deltas[..<level]
    geometry = chain.geometry
    index = chain.writing?.index
  }

  mutating func own(_ cluster: UInt64) throws(DeviceError) -> Bool {
    guard !lower.isEmpty else { return false }
    let position = Geometry.position(of: cluster)
    if position.page != page { try load(position.page) }
    return owned[position.slot]
  }

  private mutating func load(_ number: Int) throws(DeviceError) {
    page = -1
    // What has been the top a moment ago may not have its index in its file yet.
    try index?.awaitBelow()
    owned = Bitmap(count: Geometry.entriesPerPage)
    let buffer = AlignedBuffer(count: Geometry.pageBytes)
    for delta in lower {
      switch delta.layout {
      case .raw(let clusters):
        for cluster in geometry.clusters(inPage: number) where cluster < clusters {
          owned[Geometry.position(of: cluster).slot] = true
        }
      case .ploop(let own):
        guard number < own.pageCount else { continue }
        try converting { () throws(IOError) in
          try delta.file.readOrZero(
            into: buffer.region, at: UInt64(number) * UInt64(Geometry.pageBytes))
        }
        for cluster in own.clusters(inPage: number) {
          let slot = Geometry.position(of: cluster).slot
          if buffer.region.littleEndian(at: slot * 4, as: UInt32.self) != 0 { owned[slot] = true }
        }
        guard let had = delta.had.clusters, had.hasAny(inPage: number) else { continue }
        for cluster in own.clusters(inPage: number) where had.contains(cluster) {
          owned[Geometry.position(of: cluster).slot] = true
        }
      }
    }
    page = number
  }
}
