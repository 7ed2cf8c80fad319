package import PloopFormat
package import PloopIO

/// One streaming pass over a delta's own index: every entry that is set, checked.
///
/// Nothing in a file is trusted. An entry is followed only if it names a whole cluster inside the
/// file, behind the header, that no other entry of the delta names.
package struct IndexScan {
  private static let chunkBytes = 1 << 20

  package let geometry: Geometry
  /// Whole clusters in the file that an entry can name. A sparse file may be longer, at no cost to
  /// who made it, and must not cost the memory to count its clusters.
  package let fileClusters: UInt64
  /// Clusters of the file that header, index and entries use. It ends near the last of them, not at
  /// the end of the file: a file may be sparse and of any length.
  package private(set) var used: Bitmap
  /// Entries that are set and good.
  package private(set) var mapped: UInt64 = 0
  /// Index pages in which slots behind the disk's last cluster are set.
  package private(set) var tailPages: [Int] = []
  /// Bytes of the index that were read: the file system knew of the others that nobody ever wrote them.
  package private(set) var readBytes: UInt64 = 0

  package init(_ geometry: Geometry, fileBytes: UInt64) {
    self.geometry = geometry
    fileClusters = min(
      fileBytes >> UInt64(geometry.clusterShift), geometry.physicalLimit + 1)
    used = Bitmap(count: Int(geometry.headerClusters))
    for cluster in 0..<geometry.headerClusters { used[Int(cluster)] = true }
  }

  /// Reads the index and hands out what it holds, in ascending order of clusters.
  ///
  /// - Parameters:
  ///   - run: called with clusters whose entries are good, as many at once as lie behind each other.
  ///   - fault: called with each bad entry; throwing ends the scan.
  package mutating func runs(
    of file: ImageFile,
    run: (IndexRun) throws(DeviceError) -> Void,
    fault: (IndexFault) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    let buffer = AlignedBuffer(
      unfilled: Int(min(UInt64(IndexScan.chunkBytes), geometry.headerBytes)))
    var written = WrittenRanges(file, endingAt: geometry.headerBytes)
    var start: UInt64 = 0
    while let range = try converting({ () throws(IOError) in try written.next(from: start) }) {
      // Whole entries, whatever blocks the file system has.
      start = range.lowerBound & ~3
      let end = min(geometry.headerBytes, (range.upperBound + 3) & ~3)
      let count = Int(min(UInt64(buffer.count), end - start))
      let chunk = buffer.region.slice(0, count)
      let read = try converting { () throws(IOError) in try file.read(into: chunk, at: start) }
      guard read == count else {
        throw DeviceError(
          .format(FormatError(.truncated, "the index ends early"), level: 0),
          "\(file.path): the index ends at byte \(start + UInt64(read))")
      }
      readBytes += UInt64(count)
      if !chunk.isZero { try take(chunk, at: start, run: run, fault: fault) }
      start += UInt64(count)
    }
  }

  /// Like ``runs(of:run:fault:)``, one cluster at a time.
  package mutating func run(
    _ file: ImageFile,
    entry: (_ cluster: UInt64, _ physical: UInt64) throws(DeviceError) -> Void,
    fault: (IndexFault) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    try runs(of: file) { (run) throws(DeviceError) in
      for step in 0..<run.count { try entry(run.cluster + step, run.physical + step) }
    } fault: {
      (found) throws(DeviceError) in
      try fault(found)
    }
  }

  /// - Parameter start: where the chunk lies in the file.
  private mutating func take(
    _ chunk: ByteRegion, at start: UInt64,
    run: (IndexRun) throws(DeviceError) -> Void,
    fault: (IndexFault) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    let slots = start / 4..<(start + UInt64(chunk.count)) / 4
    let disk = Geometry.headerSlots..<Geometry.headerSlots + geometry.clusterCount
    let mine = slots.clamped(to: disk)
    if !mine.isEmpty {
      let part = chunk.slice(Int(mine.lowerBound - slots.lowerBound) * 4, mine.count * 4)
      var entries = IndexRuns(
        part.buffer, from: mine.lowerBound - Geometry.headerSlots, geometry,
        fileClusters: fileClusters)
      while let element = entries.next() {
        switch element {
        case .fault(let found): try fault(found)
        case .run(let found): try take(found, run: run, fault: fault)
        }
      }
    }
    let tail = slots.clamped(to: max(disk.upperBound, slots.lowerBound)..<UInt64.max)
    guard !tail.isEmpty else { return }
    let rest = chunk.slice(Int(tail.lowerBound - slots.lowerBound) * 4, tail.count * 4)
    // Of a small disk that is most of the first cluster, and nothing is ever in it.
    guard !rest.isZero else { return }
    for slot in tail {
      let entry = chunk.littleEndian(at: Int(slot - slots.lowerBound) * 4, as: UInt32.self)
      guard entry != 0 else { continue }
      let cluster = slot - Geometry.headerSlots
      let page = Geometry.position(of: cluster).page
      if tailPages.last != page { tailPages.append(page) }
      try fault(IndexFault(.beyondDisk, cluster: cluster, entry: entry))
    }
  }

  private mutating func take(
    _ found: IndexRun, run: (IndexRun) throws(DeviceError) -> Void,
    fault: (IndexFault) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    let places = Int(found.physical)..<Int(found.physical + found.count)
    if places.upperBound > used.count {
      let wanted = max(UInt64(places.upperBound), UInt64(used.count) * 2)
      used.resize(to: Int(min(fileClusters, wanted)))
    }
    guard used.isClear(places) else {
      // Some of it is somebody else's already: looked at one by one.
      if found.count == 1 {
        return try fault(
          IndexFault(.duplicate, cluster: found.cluster, entry: geometry.entry(of: found.physical)))
      }
      for step in 0..<found.count {
        let one = IndexRun(cluster: found.cluster + step, physical: found.physical + step, count: 1)
        try take(one, run: run, fault: fault)
      }
      return
    }
    used.set(places)
    mapped += found.count
    try run(found)
  }
}
