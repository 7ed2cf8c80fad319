import CrashKit
import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("A chain of backups")
struct ChainTests {
  @Test("holds every point byte for byte, over 20 increments with writes, trims and zeroes")
  func twentyIncrements() throws {
    let seed = UInt64(2026)
    var random = SeededGenerator(seed: seed)
    let bench = try BackupBench(sizeBytes: 64 << 12 - 512)
    bench.write(stride(from: 0, to: 64, by: 3))
    try bench.point()
    for round in 1...20 {
      if round == 10 { bench.disk = bench.disk.grown(to: 80 << 12) }
      var changed: Set<Int> = round == 10 ? Set(63..<80) : []
      for _ in 0..<8 {
        let cluster = Int.random(in: 0..<bench.disk.clusters.count, using: &random)
        changed.insert(cluster)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bench.disk.clusters[cluster] = nil
        case 1: bench.disk.clusters[cluster] = 0
        default: bench.write([cluster])
        }
      }
      let done = try bench.point(changed: changed.sorted())
      let isRead = Set(done.source.readClusters)
      #expect(isRead.isSubset(of: changed.map(UInt64.init)), "seed \(seed), round \(round)")
      #expect(isRead.count == done.source.readClusters.count)
    }
    try bench.expectAllSound()
    let points = try bench.chain.points()
    #expect(points.map(\.id) == (0...20).map { "b\($0)" })
    #expect(points.map(\.chainLength) == Array(1...21))
    #expect(points.allSatisfy { $0.state == .whole })
  }

  @Test("stores a zero cluster only where an older point has the cluster")
  func zeroes() throws {
    let bench = try BackupBench()
    bench.write([1, 2, 3, 4])
    bench.disk.clusters[5] = 0
    let full = try bench.point()
    #expect(full.result.storedClusters == 4)
    #expect(full.result.zeroBytes == 60 << 12)
    #expect(full.result.bytesRead == 5 << 12)
    // 1 is trimmed, 2 is zeroed; 5 and 6 have nothing beneath them.
    bench.disk.clusters[1] = nil
    bench.disk.clusters[2] = 0
    let increment = try bench.point(changed: [1, 2, 5, 6])
    #expect(increment.result.storedClusters == 2)
    #expect(Set(increment.source.readClusters) == [2, 5])
    #expect(increment.result.bytesWritten == 2 << 12)
    try bench.expectAllSound()
  }

  @Test("is gone on with at the last commit, and nothing before it is copied again")
  func resumes() throws {
    let bench = try BackupBench()
    bench.write(0..<64)
    let manifest = bench.manifest(ModelSource(bench.disk))
    do {
      let source = ModelSource(bench.disk)
      let copy = BackupCopy(from: source, to: try bench.chain.write(manifest), on: bench.engine)
      for _ in 0..<3 {
        _ = try copy.step(limitBytes: 10 << 12)
        try copy.commit()
      }
      _ = try copy.step(limitBytes: 10 << 12)
      #expect(source.readClusters.count == 40)
      #expect(source.released == [0..<10, 10..<20, 20..<30])
      copy.abandon()
      #expect(kind { try copy.commit() } == .failed)
    }
    #expect(try bench.chain.points().map(\.state) == [.partial])
    #expect(try bench.chain.descriptor() == nil)
    // What was written behind the commit, and a record that was cut short, do not count.
    let sums = try bench.folder.open("b0.sums", writable: true)
    try sums.write(AlignedBuffer(Array("PBJ1 and then".utf8)).region, at: sums.size())
    let source = ModelSource(bench.disk)
    let writer = try bench.chain.write(manifest)
    #expect(writer.cursor == 30)
    #expect(kind { _ = try bench.chain.write(manifest) } == .locked)
    try bench.copy(source, to: writer)
    #expect(Set(source.readClusters) == Set(30..<64))
    #expect(source.released.first == 0..<30)
    let values = try ModelDisk.values(of: PointReader("b0", of: bench.chain))
    #expect(bench.disk.reads(like: try #require(values)))
    #expect(try bench.chain.manifest("b0").result?.bytesRead == 64 << 12)
    #expect(kind { _ = try bench.chain.write(manifest) } == .exists)
  }

  @Test("is told to have a point only once that is durable")
  func durablyWhole() throws {
    let bench = try BackupBench()
    bench.write(0..<4)
    try bench.point()
    let trace = IOTrace()
    let chain = BackupChain(in: try ImageFolder(path: bench.chain.folder.path, probe: trace))
    #expect(try !chain.isWhole("b9"))
    #expect(trace.events.isEmpty)
    #expect(try chain.isWhole("b0"))
    guard case .folderSynced? = trace.events.last else {
      Issue.record("whoever was killed behind the rename has not made it durable")
      return
    }
  }

  @Test("begins a point anew when its image does not hold what the journal says")
  func lostImage() throws {
    let bench = try BackupBench()
    bench.write(0..<64)
    let manifest = bench.manifest(ModelSource(bench.disk))
    for damage in 0..<3 {
      do {
        let copy = BackupCopy(
          from: ModelSource(bench.disk), to: try bench.chain.write(manifest), on: bench.engine)
        _ = try copy.step(limitBytes: 10 << 12)
        try copy.commit()
        copy.abandon()
      }
      switch damage {
      case 0: try bench.folder.unlink("b0.hds")
      case 1: try bench.folder.open("b0.hds", writable: true).truncate(to: 5 << 12)
      default: try bench.flip("b0.hds", at: 3)
      }
      let writer = try bench.chain.write(manifest)
      #expect(writer.cursor == 0)
      writer.letGo()
    }
    try bench.copy(ModelSource(bench.disk), to: try bench.chain.write(manifest))
    #expect(try bench.wrong("b0").isEmpty)
  }

  @Test("refuses what does not fit it")
  func refusals() throws {
    let bench = try BackupBench()
    bench.write(0..<8)
    try bench.point()
    try bench.point(changed: [1])
    let source = ModelSource(bench.disk, wanted: [1])
    func refusal(_ change: (inout PointManifest) -> Void) -> BackupError.Kind? {
      var manifest = bench.manifest(source)
      change(&manifest)
      return kind { _ = try bench.chain.write(manifest, wanted: source.wanted) }
    }
    #expect(refusal { $0.parent = "b0" } == .mismatch)
    #expect(refusal { $0.parent = nil } == .mismatch)
    #expect(refusal { $0.clusterBytes = 8192 } == .mismatch)
    #expect(refusal { $0.clusterBytes = 5000 } == .mismatch)
    #expect(refusal { $0.sizeBytes = 32 << 12 } == .mismatch)
    #expect(refusal { $0.wantedDigest = nil } == .mismatch)
    for id in ["../b", ".b", "", "a/b", String(repeating: "b", count: 65)] {
      let manifest = bench.manifest(source, id)
      #expect(kind { _ = try bench.chain.write(manifest, wanted: source.wanted) } == .mismatch)
    }
    // Begun as one thing, it is not gone on with as another.
    let manifest = bench.manifest(source)
    _ = try bench.chain.write(manifest, wanted: source.wanted)
    var other = manifest
    other.pointInTime += 1
    #expect(kind { _ = try bench.chain.write(other, wanted: source.wanted) } == .mismatch)
    let files = ["b0.hds", "b0.json", "b0.sums", "b1.hds", "b1.json", "b1.sums"]
    let mine = ["b2.hds", "b2.json", "b2.sums", "DiskDescriptor.xml", "DiskDescriptor.xml.lck"]
    #expect(Set(try bench.folder.names()) == Set(files + mine))
  }

  @Test("loses its newest point first, and none that others build on")
  func removal() throws {
    let bench = try BackupBench()
    bench.write(0..<8)
    try bench.point()
    bench.disk = bench.disk.grown(to: 70 << 12)
    bench.write([1, 66])
    try bench.point(changed: [1, 66])
    bench.write([1])
    try bench.point(changed: [1])
    #expect(kind { try bench.chain.remove("b0") } == .hasDependents(["b1", "b2"]))
    #expect(kind { try bench.chain.remove("b9") } == .notFound)
    do {
      let reader = try PointReader("b2", of: bench.chain)
      #expect(kind { try bench.chain.remove("b2") } == .locked)
      withExtendedLifetime(reader) {}
    }
    try bench.chain.remove("b2")
    try bench.chain.remove("b1")
    #expect(try bench.chain.points().map(\.id) == ["b0"])
    let descriptor = try #require(try bench.chain.descriptor())
    #expect(descriptor.sizeSectors == 64 << 3)
    #expect(descriptor.shots.map(\.file) == ["b0.hds"])
    #expect(try bench.wrong("b0").isEmpty)
    try bench.chain.remove("b0")
    #expect(try bench.folder.names() == ["DiskDescriptor.xml.lck"])
  }

  @Test("is listed while files of it get their names, and go")
  func listedMeanwhile() throws {
    let bench = try BackupBench()
    bench.write(0..<4)
    try bench.point()
    let folder = bench.folder
    let rounds = Locked(0)
    let isOver = Monitor(false)
    try Thread(name: "writer") {
      while rounds.withLock({ $0 }) < 2_000 { try? folder.replace("b1.json", with: [1]) }
      isOver.update { $0 = true }
    }.detach()
    defer { _ = isOver.wait { $0 ? true : nil } }
    defer { rounds.withLock { $0 = .max } }
    for _ in 0..<2_000 {
      #expect(try bench.chain.points().first?.id == "b0")
      rounds.withLock { $0 += 1 }
    }
  }

  @Test("gets no point while another program has its descriptor, and gets it afterwards")
  func lockedDescriptor() throws {
    let bench = try BackupBench()
    bench.write(0..<4)
    try bench.point()
    bench.write([1])
    let source = ModelSource(bench.disk, wanted: [1])
    let manifest = bench.manifest(source)
    let copy = BackupCopy(
      from: source, to: try bench.chain.write(manifest, wanted: source.wanted), on: bench.engine)
    while try copy.step(limitBytes: 1 << 20) {}
    do {
      let lock = try DescriptorLocks().acquire(in: bench.folder, exclusive: true)
      defer { withExtendedLifetime(lock) {} }
      #expect(kind { _ = try copy.finish() } == .locked)
      #expect(try bench.chain.points().map(\.state) == [.whole, .partial])
    }
    copy.abandon()
    try bench.copy(source, to: try bench.chain.write(manifest, wanted: source.wanted))
    #expect(try bench.chain.points().map(\.state) == [.whole, .whole])
  }

  @Test("a journal that is gone on with is written anew: what was seen of it may be on no disk")
  func journalWrittenAnew() throws {
    let bench = try BackupBench()
    bench.write(0..<8)
    let source = ModelSource(bench.disk)
    let manifest = bench.manifest(source)
    let copy = BackupCopy(from: source, to: try bench.chain.write(manifest), on: bench.engine)
    _ = try copy.step(limitBytes: 3 << 12)
    try copy.commit()
    copy.abandon()
    // Open meanwhile, so that no other file gets its inode.
    let name = "\(manifest.id).sums"
    let before = try bench.folder.open(name, writable: true)
    let bytes = try bench.folder.bytes(of: name, limit: 1 << 20)
    // Of a record that was cut short.
    try before.write(AlignedBuffer([1, 2, 3]).region, at: UInt64(bytes.count))
    try bench.chain.write(manifest).letGo()
    #expect(try bench.folder.open(name, writable: false).identity != before.identity)
    #expect(try bench.folder.bytes(of: name, limit: 1 << 20) == bytes)
    try bench.copy(source, to: try bench.chain.write(manifest))
    #expect(try bench.chain.points().map(\.state) == [.whole])
  }
}
