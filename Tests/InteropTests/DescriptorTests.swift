import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Descriptors and OpenVZ's ploop")
struct DescriptorTests {
  private func guid(_ digit: Int) -> String {
    let digits = String(repeating: String(digit), count: 8)
    return "{\(digits)-0000-4000-8000-000000000000}"
  }

  private func name(_ digit: Int) throws -> GUID { try #require(GUID(guid(digit))) }

  private func read(_ bench: Bench) throws -> Descriptor {
    try DescriptorFile(in: bench.folder).read()
  }

  /// What `ploop` makes of a descriptor is, byte for byte, what a change of the value is.
  private func expectSame(
    _ bench: Bench, _ command: String,
    _ change: (inout Descriptor, Descriptor) throws -> Void
  ) throws {
    var ours = try read(bench)
    try OpenVZ.run("cd '\(bench.folder.path)' && ploop \(command) DiskDescriptor.xml")
    let theirs = try read(bench)
    let bytes = try bench.folder.bytes(of: "DiskDescriptor.xml", limit: 1 << 20)
    #expect(theirs.file == bytes, "\(command)")
    try change(&ours, theirs)
    #expect(String(decoding: ours.file, as: UTF8.self) == String(decoding: bytes, as: UTF8.self))
  }

  private func top(_ descriptor: Descriptor) throws -> String {
    try #require(descriptor.shot(.top)).file
  }

  @Test("say the same of every change of a tree", arguments: ["expanded", "raw", "preallocated"])
  func changes(_ kind: String) throws {
    let bench = try Bench()
    try OpenVZ.initialise(
      bench.path("root.hds"), version: 1, clusterSectors: 128, size: "1M", kind: kind)
    let geometry = Geometry(version: .v1, clusterShift: 16, sizeBytes: 1 << 20)
    if kind == "expanded" {
      #expect(try read(bench) == Descriptor(new: geometry, file: "root.hds"))
    }
    for digit in 1...3 {
      try expectSame(bench, "snapshot -u '\(guid(digit))'") { ours, theirs in
        try ours.addSnapshot(try name(digit), newTopFile: try top(theirs))
      }
    }
    try expectSame(bench, "snapshot-switch -u '\(guid(1))'") { ours, theirs in
      let gone = try ours.switchTop(
        to: try name(1), newTopFile: try top(theirs), keepingTopAs: nil)
      #expect(!bench.folder.contains(try #require(gone).file))
    }
    try expectSame(bench, "snapshot-delete -u '\(guid(1))'") { ours, _ in
      try ours.mark(try name(1), as: .temporary)
    }
    try expectSame(bench, "snapshot-merge -u '\(guid(3))'") { ours, _ in
      let gone = try ours.mergeIntoParent(name(3))
      #expect(!bench.folder.contains(gone))
    }
    try expectSame(bench, "snapshot-delete -u '\(guid(3))'") { ours, _ in
      let gone = try ours.removeLeaf(name(3))
      #expect(!bench.folder.contains(gone.file))
      // One state is left above what was to be deleted: now it is.
      if try read(bench).shot(name(1)) == nil { _ = try ours.mergeIntoParent(.top) }
    }
    try expectSame(bench, "grow -s 2M") { ours, _ in ours.resize(toSectors: 4096) }
  }

  @Test("A tree that we have written is listed, checked and merged by it", arguments: [1, 2])
  func accepted(_ version: Int) throws {
    let bench = try Bench()
    let geometry = Geometry(
      version: try #require(ImageVersion(rawValue: version)), clusterShift: 16, sizeBytes: 1 << 20)
    let file = DescriptorFile(in: bench.folder)
    var descriptor = Descriptor(new: geometry, file: "root.hds")
    var expected = [UInt8](repeating: 0, count: 1 << 20)
    for level in 1...4 {
      let image = try top(descriptor)
      try ImageCreator.create(in: bench.folder, name: image, geometry: geometry)
      try file.replace(with: descriptor)
      let device = try bench.attach(try descriptor.chain(to: .top).map(\.file))
      let bytes = [UInt8](repeating: UInt8(level), count: 100_000)
      let start = level * 70_000
      try device.put(bytes, at: UInt64(start))
      expected.replaceSubrange(start..<start + bytes.count, with: bytes)
      try device.close()
      if level < 4 { try descriptor.addSnapshot(name(level), newTopFile: descriptor.newFileName()) }
    }
    let list = try OpenVZ.run(
      """
      cd '\(bench.folder.path)'
      ploop check DiskDescriptor.xml
      ploop snapshot-list -H -o uuid DiskDescriptor.xml
      """)
    for guid in descriptor.shots.map(\.guid.description) { #expect(list.contains(guid)) }
    try OpenVZ.run(
      """
      cd '\(bench.folder.path)'
      ploop snapshot-delete -u '\(guid(2))' DiskDescriptor.xml
      ploop snapshot-merge -A DiskDescriptor.xml
      """)
    #expect(try read(bench).shots.map(\.file) == ["root.hds"])
    #expect(try bench.folder.names().filter { $0.hasPrefix("root.hds") } == ["root.hds"])
    let device = try bench.attach(["root.hds"])
    #expect(try device.bytes(0, 1 << 20) == expected)
    try device.close()
  }
}
