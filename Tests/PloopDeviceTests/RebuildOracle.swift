import PloopFormat
import PloopIO
import Testing

@testable import PloopDevice

/// Holds the map of a disk that has just been flushed against the one that its files say (invariant
/// D3): so it would be after a restart.
///
/// - Returns: the levels as they are in the files.
@discardableResult
func expectRebuilt(_ device: Device, _ note: Comment? = nil) throws -> [ChainOpener.Level] {
  let chain = device.chain
  let opener = ChainOpener(sources: chain.deltas.map(\.source), options: AttachOptions())
  var (geometry, levels) = try opener.readHeaders()
  let rebuilt = ClusterMap(geometry)
  try opener.readIndexes(&levels, into: rebuilt)
  for cluster in 0..<geometry.clusterCount {
    let place = try device.map.place(of: cluster).map {
      Place(delta: chain.level(of: $0.delta) ?? -1, physical: $0.physical)
    }
    #expect(place == rebuilt[cluster], "cluster \(cluster); \(note ?? "")")
  }
  return levels
}
