internal import PloopFormat
internal import PloopIO

/// Looks at the index of a top while guests write: its entries from the map, inside the gate and in short
/// steps, and whether the file has what the map says. A page of the map that is not in memory is what the file says,
/// so it is read there, and the top's alone: what another delta has does not matter.
///
/// What is on its way is no fault. A freed cluster is not used again before everybody has left the gate,
/// so two clusters share a place if they are seen with it within one pass; across passes that is only
/// suspected, and looked at again. Pages of the file are compared ahead, and those that differ once more
/// while the gate is closed and everything is flushed.
final class LiveIndex {
  /// Pages of one step: 1 MiB of index.
  private static let stepPages = 256

  private let device: Device
  private let writing: Writing
  private let top: Delta
  private let geometry: Geometry
  private var nextPage = 0
  private var used: Bitmap
  /// Physical clusters that several entries have named, in different passes.
  private var suspects: Set<UInt64> = []
  private var found = FoundFaults()
  private var order = ClusterOrder()
  private var differences: [ImageCheck.Difference] = []

  /// Nil for a disk that nobody writes: its top is like the others.
  init?(of device: Device) {
    let chain = device.chain
    guard let writing = chain.writing else { return nil }
    self.device = device
    self.writing = writing
    top = chain.top
    geometry = chain.geometry
    used = Bitmap(count: Int(geometry.headerClusters))
    for cluster in 0..<geometry.headerClusters { used[Int(cluster)] = true }
  }

  /// - Returns: bytes of the index that were looked at; nil when there is nothing left.
  func step(until deadline: Deadline) throws(DeviceError) -> UInt64? {
    let pages = nextPage..<min(nextPage + LiveIndex.stepPages, geometry.pageCount)
    guard !pages.isEmpty else { return nil }
    // So that little of it differs below.
    try writing.index.flush()
    try take(try entries(in: pages))
    try compare(pages, until: deadline)
    nextPage = pages.upperBound
    return UInt64(pages.count * Geometry.pageBytes)
  }

  private func inside<Result>(
    _ body: () throws(DeviceError) -> Result
  ) throws(DeviceError) -> Result {
    let pass = try device.admitted()
    defer { device.gate.leave(pass) }
    return try body()
  }

  /// Hands out what the top has in some pages, as its index says it; the caller is inside.
  private func forEachEntry(
    in pages: Range<Int>, _ body: (_ cluster: UInt64, _ entry: UInt32) -> Void
  ) throws(DeviceError) {
    let page = AlignedBuffer(count: Geometry.pageBytes).region
    for number in pages where !device.map.table.isEmpty(page: number) {
      if device.map.table.pin(page: number) {
        device.map.encode(page: number, delta: top.number, into: page)
        device.map.unpin(number)
      } else {
        try read(number, into: page)
      }
      for cluster in geometry.clusters(inPage: number) {
        let entry = page.littleEndian(
          at: Geometry.position(of: cluster).slot * 4, as: UInt32.self)
        if entry != 0 { body(cluster, entry) }
      }
    }
  }

  private func read(_ page: Int, into region: ByteRegion) throws(DeviceError) {
    try converting { () throws(IOError) in
      try top.file.readOrZero(into: region, at: UInt64(page) * UInt64(Geometry.pageBytes))
    }
  }

  private func entries(
    in pages: Range<Int>
  ) throws(DeviceError) -> [(cluster: UInt64, entry: UInt32)] {
    try inside { () throws(DeviceError) in
      var found: [(cluster: UInt64, entry: UInt32)] = []
      try forEachEntry(in: pages) { found.append(($0, $1)) }
      return found
    }
  }

  private func take(_ entries: [(cluster: UInt64, entry: UInt32)]) throws(DeviceError) {
    // Looked at afterwards: the file has grown before an entry names anything.
    let bytes = try converting { () throws(IOError) in try top.file.size() }
    let fileClusters = min(
      bytes >> UInt64(geometry.clusterShift), geometry.physicalLimit + 1)
    for (cluster, entry) in entries {
      let physical: UInt64
      switch geometry.physical(of: entry, cluster: cluster, fileClusters: fileClusters) {
      case .success(let place): physical = place
      case .failure(let fault):
        found.take(fault)
        continue
      }
      order.take(cluster, physical)
      if physical >= used.count {
        used.resize(to: Int(min(fileClusters, max(physical + 1, UInt64(used.count) * 2))))
      }
      if used[Int(physical)] { suspects.insert(physical) }
      used[Int(physical)] = true
    }
  }

  // MARK: The file

  private func compare(_ pages: Range<Int>, until deadline: Deadline) throws(DeviceError) {
    var differing: [Int] = []
    let buffers = Buffers()
    for page in pages where try !differences(in: page, buffers).isEmpty { differing.append(page) }
    guard !differing.isEmpty else { return }
    var stays: [ImageCheck.Difference] = []
    _ = try device.whileClosed(until: deadline) { () throws(DeviceError) in
      try writing.index.flush()
      for page in differing { stays += try differences(in: page, buffers) }
    }
    let room = ImageCheck.faultsKept - differences.count
    differences += stays.prefix(max(0, room))
  }

  private struct Buffers {
    let expected = AlignedBuffer(count: Geometry.pageBytes)
    let there = AlignedBuffer(count: Geometry.pageBytes)
  }

  private func differences(
    in page: Int, _ buffers: Buffers
  ) throws(DeviceError) -> [ImageCheck.Difference] {
    let (expected, there) = (buffers.expected.region, buffers.there.region)
    if device.map.table.pin(page: page) {
      defer { device.map.unpin(page) }
      device.map.encode(page: page, delta: top.number, into: expected)
      try read(page, into: there)
    } else {
      // It is what the file says, unless it is known to have nothing.
      guard device.map.table.isEmpty(page: page) else { return [] }
      expected.zero()
      try read(page, into: there)
    }
    return geometry.clusters(inPage: page).compactMap { cluster in
      let offset = Geometry.position(of: cluster).slot * 4
      let entry = there.littleEndian(at: offset, as: UInt32.self)
      let wanted = expected.littleEndian(at: offset, as: UInt32.self)
      return entry == wanted
        ? nil : ImageCheck.Difference(cluster: cluster, entry: entry, expected: wanted)
    }
  }

  // MARK: The end

  func result() throws(DeviceError) -> ChainCheck.Level {
    try judgeSuspects()
    let bytes = try converting { () throws(IOError) in try top.file.size() }
    let header: Header
    do throws(FormatError) {
      header = try Header(parsing: try headerBytes())
      let own = try header.geometry(fileBytes: bytes)
      guard own == geometry else {
        throw FormatError(
          .geometryMismatch, "the header is another one than at the attach: it says \(own)")
      }
    } catch { return .unusable(error) }
    return .image(
      try ImageCheck(
        live: top.file, header, geometry, found, order, differences,
        unreferenced: writing.allocator.holes))
  }

  private func headerBytes() throws(FormatError) -> [UInt8] {
    let buffer = AlignedBuffer(count: Header.byteCount)
    guard (try? top.file.readOrZero(into: buffer.region, at: 0)) != nil else {
      throw FormatError(.truncated, "the header cannot be read")
    }
    return buffer.region.bytes
  }

  /// Whoever shares a place does so all the time: all are found that name one of the suspects, in steps as above, and
  /// those that several have named are looked at once more within one pass. What is free then is not used again before
  /// it ends.
  private func judgeSuspects() throws(DeviceError) {
    guard !suspects.isEmpty else { return }
    var owners: [UInt64: [UInt64]] = [:]
    for first in stride(from: 0, to: geometry.pageCount, by: LiveIndex.stepPages) {
      let pages = first..<min(first + LiveIndex.stepPages, geometry.pageCount)
      for (cluster, entry) in try entries(in: pages) {
        guard let physical = place(of: entry, cluster), suspects.contains(physical) else {
          continue
        }
        owners[physical, default: []].append(cluster)
      }
    }
    for (physical, clusters) in owners.sorted(by: { $0.key < $1.key }) where clusters.count > 1 {
      for cluster in try sharing(physical, clusters) {
        found.take(IndexFault(.duplicate, cluster: cluster, entry: geometry.entry(of: physical)))
      }
    }
  }

  /// Those of the clusters that have a place which another one of them has at the same time: in passes of a step each,
  /// however many there are, in which all are held against the first.
  private func sharing(
    _ physical: UInt64, _ clusters: [UInt64]
  ) throws(DeviceError) -> [UInt64] {
    var shared: [UInt64] = []
    var rest = clusters.dropFirst()
    while !rest.isEmpty {
      let part = rest.prefix(LiveIndex.stepPages)
      rest = rest.dropFirst(part.count)
      shared += try having(physical, clusters.prefix(1) + part).dropFirst()
    }
    return shared
  }

  /// Those of the clusters that have a place, all at one time.
  private func having(
    _ physical: UInt64, _ clusters: ArraySlice<UInt64>
  ) throws(DeviceError) -> [UInt64] {
    let pages = Set(clusters.map { Geometry.position(of: $0).page }).sorted()
    let wanted = Set(clusters)
    return try inside { () throws(DeviceError) in
      var found: [UInt64] = []
      for page in pages {
        try forEachEntry(in: page..<page + 1) { cluster, entry in
          if wanted.contains(cluster), place(of: entry, cluster) == physical {
            found.append(cluster)
          }
        }
      }
      return found
    }
  }

  private func place(of entry: UInt32, _ cluster: UInt64) -> UInt64? {
    try? geometry.physical(of: entry, cluster: cluster, fileClusters: .max).get()
  }
}
