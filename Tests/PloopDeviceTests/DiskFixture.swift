internal import Glibc
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// A folder with images in it, removed at the end.
final class DiskFixture {
  let folder: ImageFolder
  let probe: (any IOProbe)?
  let indexCache: FramePool

  init(
    beneath parent: String = "/tmp", probe: (any IOProbe)? = nil, indexCache: FramePool = .ofTests
  ) throws {
    self.indexCache = indexCache
    var template = Array("\(parent)/ploopd-device-XXXXXX".utf8CString)
    let made = try #require(mkdtemp(&template))
    folder = try ImageFolder(path: String(cString: made), probe: probe)
    self.probe = probe
  }

  deinit {
    guard let names = opendir(folder.path) else { return }
    while let entry = readdir(names) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      unlink("\(folder.path)/\(name)")
    }
    closedir(names)
    rmdir(folder.path)
  }

  /// An empty image, built from the format's bytes rather than by the code under test.
  func make(_ name: String, _ geometry: Geometry) throws {
    let file = try folder.create(name)
    try file.truncate(to: geometry.headerBytes)
    try file.write(AlignedBuffer(Header(new: geometry).encoded).region, at: 0)
  }

  func source(_ name: String, writable: Bool = false, isRaw: Bool = false) throws -> DeltaSource {
    DeltaSource(
      file: try folder.open(name, writable: writable), folder: folder, name: name, isRaw: isRaw)
  }

  /// Attaches images, oldest first; the last is opened for writing.
  func attach(
    _ names: [String], raw: Set<String> = [], readonly: Bool = false, repair: Bool = false,
    locks: [DescriptorLock]? = nil
  ) throws -> Device {
    var options = AttachOptions.ofTests
    options.indexCache = indexCache
    options.readonly = readonly
    options.repairSafely = repair
    options.descriptorLocks = locks
    return try Device.attach(
      names.map {
        try source($0, writable: !readonly && $0 == names.last, isRaw: raw.contains($0))
      }, options)
  }
}
