package import PloopFormat
internal import PloopIO

/// What lies on the host's disk before a scenario begins, and what that disk can do.
package struct Setup: Sendable {
  package enum Base: Sendable {
    case none
    /// A ploop delta with content in every other cluster.
    case delta
    /// A raw file with content in its first clusters.
    case raw
  }

  package var geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 12 * 4096)
  package var base = Base.none
  /// Bytes of garbage behind what the top's index names.
  package var spareTailBytes = 0
  /// Whether the header says that a conversion between the versions is under way, which in a closed image means nothing.
  package var hasConversionFlag = false
  /// Whether the host can punch holes and reserve space.
  package var hasHoles = true
  /// Whether files of the host can share blocks.
  package var sharesBlocks = false
  /// Whether a flush round runs ahead of every write of data, as another connection's could.
  package var hasRoundsInside = false

  package init() {}

  /// - Parameter offset: in the top's file, of what is about to be written.
  func runsRound(aheadOf offset: UInt64) -> Bool {
    hasRoundsInside && offset >= geometry.headerBytes
  }

  package var sectorCount: Int { Int(geometry.sizeBytes) / History.sectorBytes }

  package func sectors(of clusters: Range<Int>) -> Range<Int> {
    let perCluster = Int(geometry.clusterBytes) / History.sectorBytes
    return
      clusters.lowerBound * perCluster..<min(clusters.upperBound * perCluster, sectorCount)
  }

  /// Makes an empty image, built from the format's bytes rather than by the code under test.
  func makeImage(_ name: String, in folder: ImageFolder, spareTailBytes: Int = 0) throws {
    let file = try folder.create(name)
    try file.truncate(to: geometry.headerBytes)
    var header = Header(new: geometry)
    if hasConversionFlag { header.flags |= Header.Flags.converting }
    try file.write(AlignedBuffer(header.encoded).region, at: 0)
    try file.write(
      AlignedBuffer([UInt8](repeating: 0xA5, count: spareTailBytes)).region,
      at: geometry.headerBytes)
  }
}
