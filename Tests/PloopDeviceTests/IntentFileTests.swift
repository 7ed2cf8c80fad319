import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("Intents that nobody of ours has written")
struct IntentFileTests {
  private static let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 1 << 20)

  @Test(
    "a name that the kernel reads otherwise than the descriptor removes nothing",
    arguments: ["base\0", "base\0.hds", "DiskDescriptor.xml\0", "sub/\u{301}x"])
  func names(file: String) throws {
    let place = try TemporaryFolder()
    let folder = try ImageFolder(path: place.path)
    let disk = try Descriptor(chain: ["base", "top"], of: Self.geometry, isBaseRaw: false)
    let descriptor = DescriptorFile(in: folder)
    try descriptor.replace(with: disk)
    for name in ["base", "top", "new"] { try folder.replace(name, with: [1]) }
    // A slash with an accent on it is one character, and no slash.
    try folder.makeFolder(beneath: "sub").replace("\u{301}x", with: [1])
    let intents = IntentFile(beside: descriptor)
    let intent = ChainIntent(.merge, device: "vm", snapshot: .top, files: [file, "new"])
    try intents.begin(intent)
    #expect(try intents.settle(try #require(try intents.read()), by: disk).isEmpty)
    let left = try folder.names().sorted()
    #expect(left == ["DiskDescriptor.xml", "base", "sub", "top"])
    #expect(try folder.folder(beneath: "sub").names() == ["\u{301}x"])
  }
}
