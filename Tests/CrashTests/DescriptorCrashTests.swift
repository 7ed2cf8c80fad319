import CrashKit
import PloopDevice
import PloopFormat
import PloopIO
import Testing

@Suite("A descriptor that is replaced")
struct DescriptorCrashTests {
  private static let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 1 << 20)

  private struct Bench {
    let scratch: ScratchFolder
    let old: Descriptor
    var new: Descriptor
    let path: String

    init() throws {
      scratch = try ScratchFolder()
      path = scratch.folder("folder")
      old = Descriptor(new: geometry, file: "root.hds")
      new = old
      try new.addSnapshot(.random(), newTopFile: "new")
      try file(nil).replace(with: old)
    }

    func file(_ probe: (any IOProbe)?) throws -> DescriptorFile {
      DescriptorFile(in: try ImageFolder(path: path, probe: probe))
    }
  }

  @Test("is the old one or the new one whenever power fails, and the new one once it is told")
  func power() throws {
    let bench = try Bench()
    let trace = IOTrace()
    // What an earlier crash left beside it is in nobody's way.
    try bench.file(nil).prepare(with: bench.old)
    let file = try bench.file(trace)
    let left = bench.old.file
    try file.prepare(with: bench.new)
    trace.mark(1)
    try file.commit()
    var states = RenameStates([file.path: left, "\(file.path).tmp": left])
    var seen: Set<Int> = []
    for event in trace.events {
      states.apply(event)
      for content in states.contents(of: file.path) {
        let bytes = try #require(content, "it is missing after \(event)")
        let descriptor = try Descriptor(parsing: bytes)
        #expect(descriptor == bench.old || descriptor == bench.new)
        seen.insert(descriptor == bench.old ? 0 : 1)
      }
      if case .mark = event {
        let contents = states.contents(of: file.path)
        #expect(contents.allSatisfy { $0 == bench.old.file })
      }
    }
    #expect(seen == [0, 1])
    #expect(states.contents(of: file.path) == [bench.new.file])
  }

  @Test("is the old one or the new one after a fault at any call, and can be replaced again")
  func faults() throws {
    var number = 0
    while true {
      let bench = try Bench()
      let plan = FaultPlan(at: number, .error(5))
      let file = try bench.file(plan)
      do {
        try file.replace(with: bench.new)
      } catch {
        #expect(plan.faultCount == 1)
        let left = try bench.file(nil).read()
        #expect(left == bench.old || left == bench.new)
        try bench.file(nil).replace(with: bench.new)
      }
      #expect(try bench.file(nil).read() == bench.new)
      if plan.faultCount == 0 { break }
      number += 1
    }
    // Create, write, sync, rename, sync of the folder, and the read before.
    #expect(number >= 5)
  }

  @Test("means nothing until it is committed, and can be dropped before")
  func abandoned() throws {
    let bench = try Bench()
    let file = try bench.file(nil)
    try file.prepare(with: bench.new)
    #expect(try file.read() == bench.old)
    try file.abandon()
    try file.abandon()
    #expect(try file.folder.names() == ["DiskDescriptor.xml"])
    #expect(throws: DeviceError.self) { try file.commit() }
    #expect(try file.read() == bench.old)
  }

  @Test("is refused when it is too long, no file, or not there")
  func unreadable() throws {
    let bench = try Bench()
    let file = try bench.file(nil)
    let long = [UInt8](repeating: 0x20, count: XMLReader.Limits.bytes + 1)
    try file.folder.replace("long", with: long)
    for name in ["long", "missing", "."] {
      #expect(throws: DeviceError.self) { try DescriptorFile(in: file.folder, name: name).read() }
    }
  }
}
