import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// A folder with images in it, removed with everything in it when the test ends.
final class Bench {
  private let temporary: TemporaryFolder
  let folder: ImageFolder

  init(beneath parent: String = "/tmp") throws {
    temporary = try TemporaryFolder(beneath: parent)
    folder = try ImageFolder(path: temporary.path)
  }

  func path(_ name: String) -> String { "\(folder.path)/\(name)" }

  func source(_ name: String, writable: Bool = false, isRaw: Bool = false) throws -> DeltaSource {
    DeltaSource(
      file: try folder.open(name, writable: writable), folder: folder, name: name, isRaw: isRaw)
  }

  /// Attaches images, oldest first; the last is opened for writing.
  func attach(
    _ names: [String], rawBase: Bool = false, readonly: Bool = false, repair: Bool = false
  ) throws -> Device {
    var options = AttachOptions.ofTests
    options.readonly = readonly
    options.repairSafely = repair
    let sources = try names.enumerated().map { level, name in
      try source(
        name, writable: !readonly && level == names.count - 1, isRaw: rawBase && level == 0)
    }
    return try Device.attach(sources, options)
  }

  // MARK: Bytes of a file

  func sizeBytes(_ name: String) throws -> UInt64 {
    try folder.open(name, writable: false).size()
  }

  func bytes(_ name: String, at offset: UInt64 = 0, count: Int) throws -> [UInt8] {
    let buffer = AlignedBuffer(count: count)
    try folder.open(name, writable: false).readOrZero(into: buffer.region, at: offset)
    return buffer.region.bytes
  }

  func header(_ name: String) throws -> Header {
    try Header(parsing: bytes(name, count: Header.byteCount))
  }

  func overwrite(_ name: String, at offset: UInt64, with bytes: [UInt8]) throws {
    try folder.open(name, writable: true).write(AlignedBuffer(bytes).region, at: offset)
  }

  func changeHeader(_ name: String, _ change: (inout Header) -> Void) throws {
    var header = try header(name)
    change(&header)
    try overwrite(name, at: 0, with: header.encoded)
  }

  func setEntry(_ name: String, slot: UInt64, to value: UInt32) throws {
    let entry = (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    try overwrite(name, at: 64 + 4 * slot, with: entry)
  }

  func truncate(_ name: String, to sizeBytes: UInt64) throws {
    try folder.open(name, writable: true).truncate(to: sizeBytes)
  }

  /// Names, sizes, times, blocks and checksums of everything in the folder.
  func fingerprint() throws -> String {
    try Tool.shell(
      "cd '\(folder.path)' && stat -c '%n %s %b %y %z' * && sha256sum *"
    ).output
  }

  /// A raw file of noise, the same for the same seed, with a hole from a third to two thirds.
  func makeRaw(_ name: String, sizeBytes: Int, seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let noise = AlignedBuffer(count: 1 << 20).region
    for word in stride(from: 0, to: noise.count, by: 8) {
      noise.setLittleEndian(random.next(), at: word)
    }
    let file = try folder.create(name)
    try file.truncate(to: UInt64(sizeBytes))
    for range in [0..<sizeBytes / 3, sizeBytes / 3 * 2..<sizeBytes] {
      // Odd steps, so that no two clusters begin alike.
      for start in stride(from: range.lowerBound, to: range.upperBound, by: noise.count - 1031) {
        let count = min(noise.count - 1031, range.upperBound - start)
        try file.write(noise.slice(start % 1031, count), at: UInt64(start))
      }
    }
  }

  // MARK: Images from the format's bytes, not by the code under test

  /// An image of which `entries` says what each logical cluster's entry names (a physical cluster);
  /// a named cluster is filled with the low byte of its number behind 0xA0.
  func makeImage(
    _ name: String, _ geometry: Geometry, entries: [UInt64: UInt64] = [:]
  ) throws {
    let file = try folder.create(name)
    var header = Header(new: geometry)
    if !entries.isEmpty { header.flags = 0 }
    try file.write(AlignedBuffer([UInt8](repeating: 0, count: 4096)).region, at: 0)
    try file.write(AlignedBuffer(header.encoded).region, at: 0)
    let last = max(geometry.headerClusters - 1, entries.values.max() ?? 0)
    try file.truncate(to: (last + 1) << UInt64(geometry.clusterShift))
    for (cluster, physical) in entries {
      try setEntry(name, slot: cluster, to: geometry.entry(of: physical))
      let content = AlignedBuffer(count: Int(min(geometry.clusterBytes, 65536)))
      content.region.fill(0xA0 | UInt8(truncatingIfNeeded: physical & 0xF))
      try file.write(content.region, at: physical << UInt64(geometry.clusterShift))
    }
  }
}

extension Device {
  /// Reads the whole disk into a new raw file.
  func copy(to bench: Bench, _ name: String) throws {
    let file = try bench.folder.create(name)
    try file.truncate(to: geometry.sizeBytes)
    let buffer = AlignedBuffer(count: 1 << 20)
    var holes = HoleList()
    for start in stride(from: 0, to: geometry.sizeBytes, by: buffer.count) {
      let part = buffer.region.slice(0, Int(min(UInt64(buffer.count), geometry.sizeBytes - start)))
      part.fill(0xEE)
      holes.clear()
      try read(into: part, at: start, holes: &holes)
      if !part.isZero { try file.write(part, at: start) }
    }
  }
}

/// The code, level and faulty entry for which an attach was refused.
func refusal(_ attach: () throws -> Device) throws -> (FormatError, level: Int)? {
  do {
    _ = try attach()
    return nil
  } catch let error as DeviceError {
    guard case .format(let format, let level) = error.kind else { throw error }
    return (format, level)
  }
}
