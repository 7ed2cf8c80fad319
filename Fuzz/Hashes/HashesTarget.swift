internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// The file of hashes beside a delta, held against the delta, which stays as it is.
///
/// Input: what the file is made of (0: of the input; 1: of its true first page and the input; else: the true file,
/// changed), whether each page's checksum is made right, whether the delta is raw. Of a change: how many bytes are cut
/// off (2 bytes), then places (2 bytes) and what is changed there.
struct HashesTarget {
  private static let pageBytes = Geometry.pageBytes
  private static let sumsPerPage = 1023

  private let ploop: HashedDisk
  private let raw: HashedDisk

  init() throws {
    ploop = try HashedDisk(isRaw: false)
    raw = try HashedDisk(isRaw: true)
  }

  func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let flags = head.byte()
    let disk = flags & 8 == 0 ? ploop : raw
    let file: [UInt8]
    switch flags & 3 {
    case 0: file = head.body
    case 1: file = disk.file.prefix(Self.pageBytes) + head.body
    default: file = Self.changed(disk.file, &head)
    }
    try judge(disk, flags & 4 == 0 ? file : Self.sealed(file))
  }

  private func judge(_ disk: HashedDisk, _ file: [UInt8]) throws {
    try disk.put(file)
    let isBelieved = Self.page(0, of: file) == Self.page(0, of: disk.file)
    var (damaged, unknown): ([UInt64], UInt64) = ([], 0)
    if isBelieved {
      for first in stride(from: 0, to: disk.clusterCount, by: UInt64.Stride(Self.sumsPerPage)) {
        let page = Self.page(Int(first) / Self.sumsPerPage + 1, of: file)
        let clusters = first..<min(first + UInt64(Self.sumsPerPage), disk.clusterCount)
        guard Self.isSealed(page) else {
          unknown += UInt64(clusters.count { disk.sums[$0] != nil })
          continue
        }
        damaged += clusters.filter {
          Self.word(Int($0 - first), of: page) != disk.sums[$0] ?? 0
        }
      }
    }

    let device = try disk.attach()
    defer { try? device.detach(until: .never) }
    for cluster in disk.sums.keys {
      let isRotten = try Self.isRotten(device, cluster)
      try promise(isRotten == damaged.contains(cluster), "cluster \(cluster) rotten: \(isRotten)")
    }
    let run = try HashRun(of: device)
    while try run.step(limitBytes: 64 << 10) != nil {}
    guard let level = run.levels.first, run.levels.count == 2 else {
      throw BrokenPromise(description: "\(run.levels.count) deltas")
    }
    try promise(level.clusters == UInt64(disk.sums.count), "\(level.clusters) clusters")
    guard isBelieved else {
      try promise(level.outcome == .hashed, "hashes of another file: \(level.outcome)")
      return try promise(try disk.stored() == disk.file, "the same file has other hashes")
    }
    try promise(level.outcome == (damaged.isEmpty ? .verified : .damaged), "\(level.outcome)")
    try promise(level.damaged == Array(damaged.prefix(HashRun.damagedKept)), "other clusters")
    try promise(level.damagedCount == UInt64(damaged.count), "\(level.damagedCount) damaged")
    try promise(level.unknownCount == unknown, "\(level.unknownCount) unknown, not \(unknown)")
    try promise(try disk.stored() == file, "hashes that were asked have changed")
  }

  private static func isRotten(_ device: Device, _ cluster: UInt64) throws -> Bool {
    do throws(DeviceError) {
      try device.requireSound(offset: cluster << UInt64(HashedDisk.clusterShift), length: 4096)
      return false
    } catch {
      guard case .rotten(let found) = error.kind, found == cluster else { throw error }
      return true
    }
  }

  // MARK: The file, by its description

  private static func changed(_ file: [UInt8], _ head: inout InputHead) -> [UInt8] {
    var file = Array(file.dropLast(Int(head.number(UInt16.self))))
    let places = head.body
    guard !file.isEmpty else { return [] }
    for start in stride(from: 0, to: places.count - 2, by: 3) {
      let place = Int(places[start]) | Int(places[start + 1]) << 8
      file[place % file.count] ^= places[start + 2]
    }
    return file
  }

  /// As long as it has to be, with zeroes behind the end.
  private static func page(_ number: Int, of file: [UInt8]) -> [UInt8] {
    let page = file.dropFirst(number * pageBytes).prefix(pageBytes)
    return page + [UInt8](repeating: 0, count: pageBytes - page.count)
  }

  private static func word(_ index: Int, of page: [UInt8]) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(page[index * 4 + $1]) << UInt32(8 * $1) }
  }

  private static func isSealed(_ page: [UInt8]) -> Bool {
    word(sumsPerPage, of: page) == CRC32C.checksum(Array(page.dropLast(4)))
  }

  /// Pages that are there as a whole get the checksum of what they say.
  private static func sealed(_ file: [UInt8]) -> [UInt8] {
    var sealed = file
    for start in stride(from: 0, through: file.count - pageBytes, by: pageBytes) {
      let end = start + pageBytes - 4
      let sum = CRC32C.checksum(Array(file[start..<end]))
      sealed.replaceSubrange(end..<end + 4, with: littleEndian(sum))
    }
    return sealed
  }
}

/// A delta with a few clusters, an empty one above it, and the file of hashes that the product has made of it.
private struct HashedDisk {
  static let clusterShift = 12
  private static let base = "base.hds"

  private let place: FuzzFolder
  private let pool = FramePool(budgetBytes: 1 << 20)
  private let isRaw: Bool
  let clusterCount: UInt64
  /// Of the clusters that the delta has.
  let sums: [UInt64: UInt32]
  private(set) var file: [UInt8] = []

  init(isRaw: Bool) throws {
    self.isRaw = isRaw
    place = try FuzzFolder()
    let geometry = Geometry(
      version: .v2, clusterShift: Self.clusterShift, sizeBytes: 2048 << UInt64(Self.clusterShift))
    let empty = Header(new: geometry).encoded
    // At both ends of pages of sums, and amid them.
    let clusters: [UInt64] =
      isRaw ? [0, 1, 2, 3, 4] : [0, 1, 3, 700, 1022, 1023, 1500, 2045, 2046, 2047]
    clusterCount = isRaw ? 5 : geometry.clusterCount
    var image: [UInt8] = []
    if !isRaw {
      image = empty + [UInt8](repeating: 0, count: Int(geometry.headerBytes) - empty.count)
      for (number, cluster) in clusters.enumerated() {
        let slot = Int(Geometry.headerSlots + cluster) * 4
        let entry = geometry.entry(of: geometry.headerClusters + UInt64(number))
        image.replaceSubrange(slot..<slot + 4, with: littleEndian(entry))
      }
    }
    var sums: [UInt64: UInt32] = [:]
    for (number, cluster) in clusters.enumerated() {
      let content = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* (number + 1) >> 3) }
      let sum = CRC32C.checksum(content)
      sums[cluster] = sum == 0 ? .max : sum
      image += content
    }
    self.sums = sums
    try place.put(Self.base, image)
    try place.put("top.hds", empty, sizeBytes: geometry.headerBytes)
    let device = try attach()
    let run = try HashRun(of: device)
    while try run.step(limitBytes: 1 << 20) != nil {}
    try device.detach(until: .never)
    file = try stored()
  }

  /// Nobody writes it, so all of its deltas have hashes.
  func attach() throws -> Device {
    var options = AttachOptions()
    options.readonly = true
    options.indexCache = pool
    let folder = place.folder
    return try Device.attach(
      [
        DeltaSource(
          file: try folder.open(Self.base, writable: false), folder: folder, name: Self.base,
          isRaw: isRaw),
        DeltaSource(
          file: try folder.open("top.hds", writable: false), folder: folder, name: "top.hds"),
      ], options)
  }

  private static var hashes: String { base + HashRun.fileSuffix }

  func put(_ file: [UInt8]) throws { try place.put(Self.hashes, file) }

  func stored() throws -> [UInt8] { try place.folder.bytes(of: Self.hashes, limit: 1 << 20) }
}
