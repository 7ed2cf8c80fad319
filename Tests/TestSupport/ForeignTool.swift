internal import PloopFormat
package import PloopIO

/// Another program that writes images of version 2 by what the format says, with no lock and none of our
/// code for it: copies first, durable, then the index, durable.
package struct ForeignTool {
  private let folder: ImageFolder

  package init(in folder: ImageFolder) { self.folder = folder }

  /// The index of an image: the cluster of the file for each cluster of the disk, 0 where there is none.
  package func index(of name: String) throws -> [UInt32] {
    try Image(folder, name, writable: false).index
  }

  /// Copies what an image lacks from the one below it.
  package func mergeForward(_ source: String, into receiver: String) throws {
    let below = try Image(folder, source, writable: false)
    var above = try Image(folder, receiver, writable: true)
    for (cluster, place) in below.index.enumerated() where place != 0 && above.index[cluster] == 0 {
      above.index[cluster] = try above.append(try below.content(place))
    }
    try above.finish()
  }

  /// Copies all that an image has over what the one below it has.
  package func mergeBackward(_ source: String, into receiver: String) throws {
    let above = try Image(folder, source, writable: false)
    var below = try Image(folder, receiver, writable: true)
    for (cluster, place) in above.index.enumerated() where place != 0 {
      let content = try above.content(place)
      if below.index[cluster] == 0 {
        below.index[cluster] = try below.append(content)
      } else {
        try below.write(content, to: below.index[cluster])
      }
    }
    try below.finish()
  }

  /// Moves clusters to the end of the file; the old places keep their bytes.
  ///
  /// - Returns: where each is now.
  @discardableResult
  package func move(_ clusters: [Int], in name: String) throws -> [UInt32] {
    var image = try Image(folder, name, writable: true)
    for cluster in clusters {
      image.index[cluster] = try image.append(try image.content(image.index[cluster]))
    }
    try image.finish()
    return clusters.map { image.index[$0] }
  }

  /// Has entries of an index say something, whatever it is.
  package func set(_ entries: [Int: UInt32], in name: String) throws {
    var image = try Image(folder, name, writable: true)
    for (cluster, entry) in entries { image.index[cluster] = entry }
    try image.finish()
  }

  /// Uses places of a file for something else.
  package func overwrite(_ places: [UInt32], in name: String) throws {
    let image = try Image(folder, name, writable: true)
    for place in places {
      let content = AlignedBuffer(count: image.clusterBytes)
      content.region.fill(0xDD)
      try image.write(content, to: place)
    }
  }

  private struct Image {
    private let file: ImageFile
    let clusterBytes: Int
    private var end: UInt32
    var index: [UInt32]

    init(_ folder: ImageFolder, _ name: String, writable: Bool) throws {
      file = try folder.open(name, writable: writable)
      let size = try file.size()
      let header = AlignedBuffer(count: Geometry.pageBytes)
      try file.readOrZero(into: header.region, at: 0)
      let sectors = header.region.littleEndian(at: 28, as: UInt32.self)
      let entries = Int(header.region.littleEndian(at: 32, as: UInt32.self))
      clusterBytes = Int(sectors) * 512
      end = UInt32((size + UInt64(clusterBytes) - 1) / UInt64(clusterBytes))
      let words = AlignedBuffer(count: (entries + 16) * 4)
      try file.readOrZero(into: words.region, at: 0)
      index = (0..<entries).map {
        words.region.littleEndian(at: 64 + $0 * 4, as: UInt32.self)
      }
    }

    func content(_ place: UInt32) throws -> AlignedBuffer {
      let buffer = AlignedBuffer(count: clusterBytes)
      try file.readOrZero(into: buffer.region, at: UInt64(place) * UInt64(clusterBytes))
      return buffer
    }

    func write(_ content: AlignedBuffer, to place: UInt32) throws {
      try file.write(content.region, at: UInt64(place) * UInt64(clusterBytes))
    }

    mutating func append(_ content: AlignedBuffer) throws -> UInt32 {
      let place = end
      try write(content, to: place)
      end += 1
      return place
    }

    func finish() throws {
      try file.sync()
      let words = AlignedBuffer(count: index.count * 4)
      for (cluster, entry) in index.enumerated() {
        words.region.setLittleEndian(entry, at: cluster * 4)
      }
      try file.write(words.region, at: 64)
      try file.sync()
    }
  }
}
