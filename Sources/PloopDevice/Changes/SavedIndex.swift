internal import PloopFormat
package import PloopIO

/// A copy of an image's header and index in a file of its own.
package struct SavedIndex {
  private static let chunkBytes: UInt64 = 1 << 20

  private let name: String
  private let folder: ImageFolder

  package init(_ name: String, in folder: ImageFolder) {
    self.name = name
    self.folder = folder
  }

  /// Copies them, durably, and only what is not zero.
  ///
  /// - Parameter bytes: of header and index: whole clusters.
  package func save(_ image: ImageFile, bytes: UInt64) throws(DeviceError) {
    let temporary = "\(name).tmp"
    try converting { () throws(IOError) in try folder.removeIfThere(temporary) }
    do throws(IOError) {
      let copy = try folder.create(temporary)
      try copy.truncate(to: bytes)
      let buffer = AlignedBuffer(count: Int(min(SavedIndex.chunkBytes, bytes)))
      var start: UInt64 = 0
      while start < bytes {
        let chunk = buffer.region.slice(0, Int(min(UInt64(buffer.count), bytes - start)))
        try image.readOrZero(into: chunk, at: start)
        if !chunk.isZero { try copy.write(chunk, at: start) }
        start += UInt64(chunk.count)
      }
      try copy.sync()
      try folder.rename(temporary, to: name)
      try folder.sync()
    } catch {
      // Half a copy is in the way of those who need the room.
      try? folder.unlink(temporary)
      throw DeviceError(error)
    }
  }

  /// Puts entries back that were taken out since, durably. The header is left as it is.
  ///
  /// - Returns: false where an entry is neither as it was nor zero, or the copy is none of such an index, which every
  ///   entry in it has to be: somebody else has written one of them since, and nothing is changed.
  package func putBack(into image: DeltaSource) throws(DeviceError) -> Bool {
    let copy = try converting { () throws(IOError) in try folder.open(name, writable: false) }
    let bytes = try converting { () throws(IOError) in try copy.size() }
    let geometry = try ImageHeader.geometry(of: image.name, in: image.folder)
    guard bytes == geometry.headerBytes else { return false }
    var lacking = false
    let isOurs = try compare(copy, image.file) { _, _ in lacking = true }
    guard isOurs, lacking else { return isOurs }
    guard try isIndex(copy, of: image.file, geometry) else { return false }
    let file = try converting { () throws(IOError) in
      try image.folder.open(image.name, writable: true)
    }
    do throws(LockError) { try ImageLock.acquire(file, for: .write) } catch {
      throw DeviceError(error)
    }
    defer { ImageLock.release(file) }
    _ = try compare(copy, file) { (saved, start) throws(IOError) in
      try file.write(saved, at: start)
    }
    try converting { () throws(IOError) in try file.sync() }
    return true
  }

  /// Whether each entry of the copy names a cluster of its own in the image: the image would be corrupt with one that
  /// does not. Those behind the disk's end nobody follows.
  private func isIndex(
    _ copy: ImageFile, of image: ImageFile, _ geometry: Geometry
  ) throws(DeviceError) -> Bool {
    let bytes = try converting { () throws(IOError) in try image.size() }
    var scan = IndexScan(geometry, fileBytes: bytes)
    var isIndex = true
    try scan.runs(of: copy) { _ in
    } fault: {
      if $0.kind != .beyondDisk { isIndex = false }
    }
    return isIndex
  }

  /// Runs `body` for each piece of the copy that has entries which the image lacks.
  ///
  /// - Returns: false, and stops, at an entry that is neither there as it was nor zero.
  private func compare(
    _ copy: ImageFile, _ image: ImageFile,
    _ body: (_ saved: ByteRegion, _ start: UInt64) throws(IOError) -> Void
  ) throws(DeviceError) -> Bool {
    try converting { () throws(IOError) in
      let bytes = try copy.size()
      let size = Int(min(SavedIndex.chunkBytes, bytes))
      guard size > 0 else { return true }
      let (ours, theirs) = (AlignedBuffer(count: size), AlignedBuffer(count: size))
      var start: UInt64 = 0
      while start < bytes {
        let count = Int(min(UInt64(size), bytes - start))
        let (saved, now) = (ours.region.slice(0, count), theirs.region.slice(0, count))
        try copy.readOrZero(into: saved, at: start)
        try image.readOrZero(into: now, at: start)
        let first = start == 0 ? Header.byteCount : 0
        var lacking = false
        for offset in stride(from: first, to: count, by: 4) {
          let old = saved.littleEndian(at: offset, as: UInt32.self)
          let entry = now.littleEndian(at: offset, as: UInt32.self)
          guard entry == old || entry == 0 else { return false }
          if entry != old { lacking = true }
        }
        if lacking { try body(saved.slice(first, count - first), start + UInt64(first)) }
        start += UInt64(count)
      }
      return true
    }
  }
}
