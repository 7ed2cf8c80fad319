internal import PloopFormat
package import PloopIO

/// An image that the caller has opened, and where it lies.
package struct DeltaSource: Sendable {
  package let file: ImageFile
  package let folder: ImageFolder
  /// The file's name in its folder.
  package let name: String
  /// A file without header that holds the disk's bytes as they are; only ever the oldest.
  package let isRaw: Bool

  package init(file: ImageFile, folder: ImageFolder, name: String, isRaw: Bool = false) {
    self.file = file
    self.folder = folder
    self.name = name
    self.isRaw = isRaw
  }
}

/// One level of a chain: an open image and how it says where its clusters are.
struct Delta: Sendable {
  enum Layout: Sendable {
    case ploop(Geometry)
    /// Cluster i of the disk is cluster i of the file.
    case raw(clusters: UInt64)
  }

  /// What the map calls it, whatever comes and goes above and below.
  let number: Int
  let source: DeltaSource
  let layout: Layout
  /// Clusters that its own index maps; of the top, the number at the time of the attach.
  let mappedClusters: UInt64
  /// Which clusters its own index had when the disk read or wrote it last, for who asks what another program has made
  /// of it since: the map has forgotten that where its pages are not in memory. Of a lower delta; of a raw one nothing.
  var had = FormerClusters()

  /// Clusters that its own index maps, as far as that is known by now; of a delta that the disk does not write.
  var mappedNow: UInt64 { had.count ?? mappedClusters }

  var file: ImageFile { source.file }
  var isRaw: Bool { source.isRaw }
}
