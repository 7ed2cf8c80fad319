import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Orphans")
struct OrphanTests {
  private func make(_ names: String..., in fixture: ServiceFixture) throws {
    for name in names {
      try Tool.shell(
        """
        cd '\(fixture.images)' && mkdir -p "$(dirname '\(name)')"
        qemu-img create -q -f parallels -o cluster_size=64k '\(name)' 1M
        """)
    }
  }

  private func images(
    _ fixture: ServiceFixture, state: ImageInfo.State? = nil
  ) async throws -> [String: ImageInfo] {
    let listing = try await fixture.service.images(
      root: nil, state: state, after: nil, limit: 1_000)
    return Dictionary(uniqueKeysWithValues: listing.page.items.map { ($0.path, $0) })
  }

  @Test("are images that nobody names; everything else says who uses it, and as what")
  func everybody() async throws {
    let fixture = try ServiceFixture()
    try await fixture.create("vm")
    let guid = try await fixture.snapshot("vm")
    try make("old/x.hds", "plain.hds", in: fixture)
    try Tool.shell("cd '\(fixture.images)' && echo text > notes.txt && ln -s plain.hds link.hds")
    let found = try await images(fixture)
    let device = try await fixture.service.device("vm")
    let deltas = device.deltas.map(\.path)
    #expect(
      Set(found.keys)
        == Set(deltas + ["main:vm/DiskDescriptor.xml", "main:old/x.hds", "main:plain.hds"]))
    for (level, path) in deltas.enumerated() {
      let image = try #require(found[path])
      #expect(image.state == .used && image.kind == .image && image.clusterBytes == 1 << 16)
      #expect(image.usage == (level == 0 ? "snapshot" : "device"))
      #expect(image.isUnclean == (level == 1))
      #expect(image.exclusiveBytes == image.diskBytes)
      let user = try #require(image.users.first { $0.kind == "device" })
      #expect(user.id == "vm" && user.isTop == (level == 1))
      #expect(user.snapshot == (level == 0 ? guid.description : nil))
      #expect(image.users.contains { $0.kind == "descriptor" })
    }
    #expect(found["main:vm/DiskDescriptor.xml"]?.users.map(\.id) == ["vm"])
    for path in ["main:old/x.hds", "main:plain.hds"] {
      #expect(found[path]?.state == .orphaned && found[path]?.users.isEmpty == true)
      #expect(found[path]?.reason == "no descriptor, device, job or target names it")
    }
    #expect(Set(try await images(fixture, state: .orphaned).keys).count == 2)

    // A disk that is detached is still its descriptor's.
    try await fixture.service.detach("vm", mode: .safe, ifRevision: nil)
    #expect(try await images(fixture)[deltas[1]]?.users.map(\.kind) == ["descriptor"])
    _ = try await fixture.service.attach(
      AttachRequest(id: "plain", source: .deltas([.init(path: "main:plain.hds")])), keeping: nil)
    let plain = try #require(try await images(fixture)["main:plain.hds"])
    #expect(plain.state == .used && plain.users.map(\.id) == ["plain"])
    try fixture.stop()
  }

  @Test("are none where it cannot be told")
  func unknown() async throws {
    let fixture = try ServiceFixture()
    try make("a/x.hds", "b/x.hds", "c/x.hds", "d/x.hds", in: fixture)
    try Tool.shell(
      """
      cd '\(fixture.images)' && echo '<broken' > a/DiskDescriptor.xml
      echo '{}' > b/DiskDescriptor.xml.intent && echo > c/x.hds.sums
      """)
    let found = try await images(fixture)
    for folder in ["a", "b", "c"] {
      let image = try #require(found["main:\(folder)/x.hds"])
      #expect(
        image.state == .unknown && image.usage == "unknown" && image.reason != nil, "\(image)")
    }
    #expect(found["main:a/DiskDescriptor.xml"]?.problem == "descriptor-invalid")
    #expect(found["main:d/x.hds"]?.state == .orphaned)
    try fixture.stop()
  }

  @Test("are none of what a descriptor elsewhere names, a target has, or a job is about to use")
  func elsewhere() async throws {
    let fixture = try ServiceFixture()
    try await fixture.create("vm")
    try await fixture.service.detach("vm", mode: .safe, ifRevision: nil)
    let top = try #require(try await images(fixture).keys.first { $0.hasSuffix(".hds") })
    let name = top.split(separator: "/").last ?? ""
    // The image moves away, and its descriptor goes on naming it; under any name of its own.
    try Tool.shell(
      """
      cd '\(fixture.images)' && mkdir far && mv 'vm/\(name)' far/moved.hds
      sed 's|<File>.*</File>|<File>../far/moved.hds</File>|' vm/DiskDescriptor.xml > vm/other.xml
      rm vm/DiskDescriptor.xml*
      """)
    try make("points/p.hds", "job/j.hds", "one.hds", "one.hds.01K.part", in: fixture)
    let one = TargetRequest(name: "one", place: .file(path: "main:one.hds", format: .ploop))
    _ = try await fixture.service.addTarget(one, keeping: nil)
    var target = TargetRequest(name: "nas", place: .directory(path: "main:points"))
    target.slots = 1
    _ = try await fixture.service.addTarget(target, keeping: nil)
    var pause = QueueChange()
    pause.isPaused = true
    _ = try await fixture.service.changeQueue(pause)
    var request = JobRequest(type: "check")
    request.parameters = ["image": .text("main:job/j.hds")]
    let job = try await fixture.service.addJob(request, keeping: nil).record.id
    let found = try await images(fixture)
    #expect(found["main:far/moved.hds"]?.users.map(\.id) == ["main:vm/other.xml"])
    #expect(found["main:points/p.hds"]?.users.map(\.id) == ["nas"])
    #expect(found["main:points/p.hds"]?.usage == "backup")
    #expect(found["main:job/j.hds"]?.users.map(\.id) == [job])
    for name in ["one.hds", "one.hds.01K.part"] {
      #expect(found["main:\(name)"]?.users.map(\.id) == ["one"])
    }
    #expect(found.values.allSatisfy { $0.state == .used })
    try fixture.stop()
  }

  @Test("come in pages of one look, with what everything takes, and that as a metric")
  func pages() async throws {
    let fixture = try ServiceFixture()
    try make("a.hds", "b.hds", "c.hds", in: fixture)
    let service = try fixture.service
    let first = try await service.images(root: "main", state: nil, after: nil, limit: 2)
    #expect(first.page.items.map(\.path) == ["main:a.hds", "main:b.hds"])
    #expect(first.page.next == "main:b.hds")
    let second = try await service.images(root: nil, state: nil, after: "main:b.hds", limit: 2)
    #expect(second.page.items.map(\.path) == ["main:c.hds"] && second.page.next == nil)
    let bytes = first.page.items.map(\.diskBytes).reduce(0, +) + second.page.items[0].diskBytes
    #expect(first.diskBytes == ["orphan": bytes] && bytes > 0)
    #expect(
      try await fixture.code {
        _ = try await $0.images(root: "none", state: nil, after: nil, limit: 1)
      } == "value-impossible")
    let metric = service.imageMetrics().first { $0.name == "ploopd_images_disk_bytes" }
    let sample = metric?.samples.first { $0.labels.contains { $0.value == "orphan" } }
    guard case .number(let value)? = sample?.value else {
      Issue.record("no sample")
      return
    }
    #expect(value == Double(bytes))
    try fixture.stop()
  }

  @Test("shared by several disks free nothing when one of them goes")
  func shared() async throws {
    let fixture = try ServiceFixture()
    try make("base.hds", "one/top.hds", "two/top.hds", in: fixture)
    for id in ["one", "two"] {
      _ = try await fixture.service.attach(
        AttachRequest(
          id: id,
          source: .deltas([.init(path: "main:base.hds"), .init(path: "main:\(id)/top.hds")])),
        keeping: nil)
    }
    let found = try await images(fixture)
    let base = try #require(found["main:base.hds"])
    #expect(base.users.map(\.id) == ["one", "two"] && base.usage == "snapshot")
    #expect(base.exclusiveBytes == 0 && base.diskBytes > 0)
    #expect(found["main:one/top.hds"]?.exclusiveBytes ?? 0 > 0)
    try fixture.stop()
  }

  @Test("have kept indexes of repaired images among them once the image is gone")
  func savedIndexes() async throws {
    let fixture = try ServiceFixture()
    try make("a.hds", in: fixture)
    try Tool.shell(
      "cd '\(fixture.images)' && cp a.hds a.hds.index-backup && cp a.hds b.hds.index-backup-1f")
    let found = try await images(fixture)
    #expect(found["main:a.hds.index-backup"]?.users.map(\.id) == ["main:a.hds"])
    #expect(found["main:b.hds.index-backup-1f"]?.state == .orphaned)
    #expect(found["main:b.hds.index-backup-1f"]?.kind == .savedIndex)
    try fixture.stop()
  }
}
