internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// The index that a delta gets back of which entries were taken out for a change that was not made, settled as after
/// a crash.
///
/// Input: whether the change was made, the snapshot is marked, the copy is as long as header and index, and there is
/// one (a bit each); how many times 4 KiB the image has at least; how many bytes of it come (2 bytes), these bytes; and
/// the copy.
enum SavedIndexTarget {
  private static let image = "base.hds"
  private static let saved = "\(Descriptor.fileName).index"

  static func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let flags = head.byte()
    let (isMade, isMarked) = (flags & 1 != 0, flags & 2 != 0)
    let (isWhole, isMissing) = (flags & 4 != 0, flags & 8 != 0)
    let sizeBytes = (UInt64(head.byte()) + 1) << 12
    let count = Int(head.number(UInt16.self))
    let rest = head.body
    let place = try FuzzFolder()
    try place.put(image, Array(rest.prefix(count)), sizeBytes: sizeBytes)
    let before = try bytes(place)
    let geometry = geometry(of: before)
    var copy = Array(rest.dropFirst(count))
    if isWhole, let geometry {
      copy = Array(copy.prefix(Int(geometry.headerBytes)))
      copy += [UInt8](repeating: 0, count: Int(geometry.headerBytes) - copy.count)
    }
    if !isMissing { try place.put(saved, copy) }
    let wasSound = isSound(place)

    let disk = try descriptor(isMarked: isMarked, isMade: isMade)
    let file = DescriptorFile(in: place.folder)
    try file.replace(with: disk)
    let shot = try disk.existingShot(isMade ? "top.hds" : image)
    try IntentFile(beside: file).begin(
      ChainIntent(
        .flip, device: "d", snapshot: shot.guid, files: [saved, "\(saved).tmp"],
        formerFile: image))
    let settled: Descriptor
    do { settled = try ChainChange.settle(file).descriptor } catch {
      try promise(try bytes(place) == before, "refused, and changed: \(error)")
      return try promise(isMissing || place.has(saved), "refused, and the copy is gone: \(error)")
    }
    let after = try bytes(place)
    try promise(try !place.has(saved) && !place.has("\(file.name).intent"), "something is left")
    try promise(try settled == file.read(), "another descriptor than there is")
    try promise(after.count == before.count, "\(after.count) bytes of \(before.count)")
    let isBack = after != before
    guard let geometry, !isMade, !isMissing, copy.count == Int(geometry.headerBytes) else {
      try promise(!isBack && settled == disk, "put back of what is no copy of an index")
      return
    }
    let index = Header.byteCount..<copy.count
    try promise(
      after.prefix(Header.byteCount) == before.prefix(Header.byteCount)
        && after.dropFirst(copy.count) == before.dropFirst(copy.count), "more than the index")
    // Where nothing has changed nothing has to be looked at.
    for start in stride(from: index.lowerBound, to: isBack ? index.upperBound : 0, by: 4) {
      let entry = start..<start + 4
      let (old, now) = (before[entry], after[entry])
      let isLacking = old.allSatisfy { $0 == 0 }
      try promise(now == old || isLacking && now == copy[entry], "an entry of neither")
    }
    let isCopy = after[index] == copy[index]
    try promise(!isBack || isCopy, "half of a copy was put back")
    if isMarked, settled.shot(shot.guid)?.mark == nil {
      try promise(isCopy, "the snapshot can be gone back to, and is not what it was")
    } else {
      try promise(settled == disk, "another descriptor")
    }
    try promise(!wasSound || isSound(place), "an image that was in order is not any more")
    try saveAgain(place, geometry, after)
    try promise(try ChainChange.settle(file).descriptor == settled, "settled twice")
    try promise(try bytes(place) == after, "settled twice, it is another image")
  }

  /// What is saved of an image is put back into it: it is there already.
  private static func saveAgain(
    _ place: FuzzFolder, _ geometry: Geometry, _ image: [UInt8]
  ) throws {
    let file = try place.folder.open(Self.image, writable: false)
    let copy = SavedIndex("again", in: place.folder)
    try copy.save(file, bytes: geometry.headerBytes)
    let written = try place.folder.bytes(of: "again", limit: 1 << 30)
    try promise(written == Array(image.prefix(written.count)), "another copy than the index")
    try promise(written.count == Int(geometry.headerBytes), "a copy of \(written.count) bytes")
    let isPutBack = try copy.putBack(
      into: DeltaSource(file: file, folder: place.folder, name: Self.image))
    try promise(isPutBack || !isSound(place), "what was saved is not taken")
    try promise(try bytes(place) == image, "what was saved has changed the image")
  }

  private static func descriptor(isMarked: Bool, isMade: Bool) throws -> Descriptor {
    let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 1 << 20)
    var disk = try Descriptor(chain: [image, "top.hds"], of: geometry, isBaseRaw: false)
    let guid = disk.shots[0].guid
    if isMarked || isMade { try disk.mark(guid, as: .temporary) }
    if isMade { try disk.flipTop() }
    return disk
  }

  private static func bytes(_ place: FuzzFolder) throws -> [UInt8] {
    try place.folder.bytes(of: image, limit: 1 << 30)
  }

  private static func geometry(of bytes: [UInt8]) -> Geometry? {
    guard let header = try? Header(parsing: Array(bytes.prefix(Header.byteCount))) else {
      return nil
    }
    return try? header.geometry(fileBytes: UInt64(bytes.count))
  }

  /// Whether it can be attached, whatever lies behind the disk's end.
  private static func isSound(_ place: FuzzFolder) -> Bool {
    guard let file = try? place.folder.open(image, writable: false),
      let check = try? ImageCheck(file)
    else { return false }
    return check.faultCount == check.faults.count
      && check.faults.allSatisfy { $0.kind == .beyondDisk }
  }
}

extension Descriptor {
  fileprivate func existingShot(_ file: String) throws -> Shot {
    guard let shot = shots.first(where: { $0.file == file }) else {
      throw BrokenPromise(description: "\(file) is gone from the descriptor")
    }
    return shot
  }
}
