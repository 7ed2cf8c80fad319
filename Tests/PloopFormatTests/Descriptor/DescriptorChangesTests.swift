import PloopFormat
import TestSupport
import Testing

@Suite("Changes of a snapshot tree")
struct DescriptorChangesTests {
  private let one = GUID(DescriptorText.guid(1)) ?? .none
  private let two = GUID(DescriptorText.guid(2)) ?? .none
  private let three = GUID(DescriptorText.guid(3)) ?? .none
  private let new = GUID(DescriptorText.guid(8)) ?? .none

  private func files(_ descriptor: Descriptor, _ guid: GUID) throws -> [String] {
    try descriptor.chain(to: guid).map(\.file)
  }

  /// The descriptor after a change, read again from what it would be written as.
  private func changed(
    _ text: String = DescriptorText.tree,
    _ change: (inout Descriptor) throws(DescriptorError) -> Void
  ) throws(DescriptorError) -> Descriptor {
    var descriptor = try DescriptorText.read(text)
    try change(&descriptor)
    let again = try Descriptor(parsing: descriptor.file)
    #expect(again == descriptor)
    return descriptor
  }

  private func refusal(
    _ change: (inout Descriptor) throws(DescriptorError) -> Void
  ) -> DescriptorError.Code? {
    do throws(DescriptorError) {
      _ = try changed { (descriptor) throws(DescriptorError) in
        let before = descriptor
        do throws(DescriptorError) { try change(&descriptor) } catch {
          #expect(descriptor == before)
          throw error
        }
      }
      return nil
    } catch {
      return error.code
    }
  }

  @Test("A snapshot keeps the file that was written, and an empty delta becomes the top")
  func snapshot() throws {
    let descriptor = try changed { (descriptor) throws(DescriptorError) in
      try descriptor.addSnapshot(new, newTopFile: "new")
    }
    #expect(try files(descriptor, new) == ["root.hds", "top"])
    #expect(try files(descriptor, .top) == ["root.hds", "top", "new"])
    #expect(
      refusal { (it) throws(DescriptorError) in try it.addSnapshot(one, newTopFile: "new") }
        == .snapshotExists)
    #expect(
      refusal { (it) throws(DescriptorError) in try it.addSnapshot(.top, newTopFile: "new") }
        == .notPossible)
    #expect(
      refusal { (it) throws(DescriptorError) in try it.addSnapshot(.none, newTopFile: "new") }
        == .notPossible)
    #expect(
      refusal { (it) throws(DescriptorError) in try it.addSnapshot(new, newTopFile: "top") }
        == .notPossible)
  }

  @Test("A top of another name gets the usual one with the first snapshot")
  func otherTopName() throws {
    let text = DescriptorText.tree.replacing(DescriptorText.top, with: DescriptorText.guid(7))
    let descriptor = try changed(text) { (descriptor) throws(DescriptorError) in
      try descriptor.addSnapshot(new, newTopFile: "new")
    }
    #expect(descriptor.topGUID == .top)
    #expect(try files(descriptor, .top) == ["root.hds", "top", "new"])
    #expect(descriptor.shot(GUID(DescriptorText.guid(7)) ?? .none) == nil)
  }

  @Test("There are 255 snapshots at most")
  func limit() throws {
    var descriptor = Descriptor(
      new: Geometry(version: .v2, clusterShift: 16, sizeBytes: 1 << 20), file: "root.hds")
    var random = SeededGenerator(seed: 1)
    for level in 0..<255 {
      try descriptor.addSnapshot(.random(using: &random), newTopFile: "\(level)")
    }
    let full = descriptor
    let error = #expect(throws: DescriptorError.self) {
      try descriptor.addSnapshot(new, newTopFile: "more")
    }
    #expect(error?.code == .tooManyShots && descriptor == full)
    #expect(try Descriptor(parsing: full.file) == full)
  }

  @Test("A switch discards the top, or keeps it as a branch")
  func switchTop() throws {
    var discarded: Descriptor.Shot?
    let without = try changed { (descriptor) throws(DescriptorError) in
      discarded = try descriptor.switchTop(to: two, newTopFile: "new", keepingTopAs: nil)
    }
    #expect(discarded?.file == "top")
    #expect(try files(without, .top) == ["root.hds", "three", "two", "new"])
    #expect(without.children(of: one).map(\.guid) == [three])
    let with = try changed { (descriptor) throws(DescriptorError) in
      discarded = try descriptor.switchTop(to: two, newTopFile: "new", keepingTopAs: new)
    }
    #expect(discarded == nil)
    #expect(try files(with, .top) == ["root.hds", "three", "two", "new"])
    #expect(try files(with, new) == ["root.hds", "top"])
    for (guid, code) in [(GUID.top, DescriptorError.Code.notPossible), (new, .snapshotNotFound)] {
      #expect(
        refusal { (it) throws(DescriptorError) in
          _ = try it.switchTop(to: guid, newTopFile: "new", keepingTopAs: nil)
        } == code)
    }
    #expect(
      refusal { (it) throws(DescriptorError) in
        _ = try it.switchTop(to: two, newTopFile: "new", keepingTopAs: three)
      } == .snapshotExists)
    var marked = try DescriptorText.read(DescriptorText.tree)
    try marked.mark(two, as: .temporary)
    #expect(throws: DescriptorError.self) {
      _ = try marked.switchTop(to: two, newTopFile: "new", keepingTopAs: nil)
    }
  }

  @Test("A merge forward keeps the child's name and file, and gives it the source's parent")
  func mergeForward() throws {
    var gone: Descriptor.Shot?
    let descriptor = try changed { (descriptor) throws(DescriptorError) in
      gone = try descriptor.mergeForward(three)
    }
    #expect(gone?.file == "three")
    #expect(try files(descriptor, two) == ["root.hds", "two"])
    #expect(
      refusal { (it) throws(DescriptorError) in _ = try it.mergeForward(one) } == .hasBranches)
    #expect(
      refusal { (it) throws(DescriptorError) in _ = try it.mergeForward(two) } == .notPossible)
    #expect(
      refusal { (it) throws(DescriptorError) in _ = try it.mergeForward(.top) } == .notPossible)
    #expect(
      refusal { (it) throws(DescriptorError) in _ = try it.mergeForward(new) } == .snapshotNotFound)
  }

  @Test("A raw base that is merged forward leaves a disk without a raw image")
  func mergeRawForward() throws {
    let text = DescriptorText.text(
      [
        (DescriptorText.guid(1), DescriptorText.none, "a"),
        (DescriptorText.top, DescriptorText.guid(1), "b"),
      ],
      type: "Plain")
    let descriptor = try changed(text) { (descriptor) throws(DescriptorError) in
      _ = try descriptor.mergeForward(one)
    }
    #expect(!descriptor.isBaseRaw && descriptor.shots.map(\.file) == ["b"])
    #expect(!String(decoding: descriptor.file, as: UTF8.self).contains("Plain"))
  }

  @Test("A merge into the parent keeps the shot's name and the parent's file")
  func mergeIntoParent() throws {
    var gone = ""
    let descriptor = try changed { (descriptor) throws(DescriptorError) in
      try descriptor.mark(three, as: .temporary)
      gone = try descriptor.mergeIntoParent(two)
    }
    #expect(gone == "two" && descriptor.shot(three) == nil)
    #expect(try files(descriptor, two) == ["root.hds", "three"])
    #expect(descriptor.shot(two)?.mark == nil)
    #expect(
      refusal { (it) throws(DescriptorError) in _ = try it.mergeIntoParent(.top) } == .hasBranches)
    #expect(
      refusal { (it) throws(DescriptorError) in _ = try it.mergeIntoParent(one) } == .notPossible)
  }

  @Test("A leaf is removed, and nothing else can be")
  func removeLeaf() throws {
    var gone: Descriptor.Shot?
    let descriptor = try changed { (descriptor) throws(DescriptorError) in
      gone = try descriptor.removeLeaf(two)
    }
    #expect(gone?.file == "two" && descriptor.shot(two) == nil)
    #expect(refusal { (it) throws(DescriptorError) in _ = try it.removeLeaf(.top) } == .notPossible)
    #expect(
      refusal { (it) throws(DescriptorError) in _ = try it.removeLeaf(three) } == .hasBranches)
  }

  @Test("The top is removed, and the snapshot that it alone built on is the top")
  func removeTop() throws {
    // Others build on the snapshot below the top.
    #expect(refusal { (it) throws(DescriptorError) in _ = try it.removeTop() } == .hasBranches)
    var gone: Descriptor.Shot?
    let descriptor = try changed { (descriptor) throws(DescriptorError) in
      _ = try descriptor.removeLeaf(two)
      _ = try descriptor.removeLeaf(three)
      gone = try descriptor.removeTop()
    }
    #expect(gone?.file == "top" && descriptor.shot(one) == nil)
    #expect(try files(descriptor, .top) == ["root.hds"])
    #expect(descriptor.topGUID == .top && descriptor.shots.count == 1)
    var alone = descriptor
    #expect(throws: DescriptorError.self) { try alone.removeTop() }
    #expect(alone == descriptor)
  }

  @Test("Snapshots can be marked, the top cannot")
  func marks() throws {
    for mark in Descriptor.Mark.allCases {
      let descriptor = try changed { (descriptor) throws(DescriptorError) in
        try descriptor.mark(three, as: mark)
      }
      #expect(descriptor.shot(three)?.mark == mark)
    }
    #expect(
      refusal { (it) throws(DescriptorError) in try it.mark(.top, as: .temporary) } == .notPossible)
  }

  @Test("New files are called as OpenVZ's tools call them")
  func names() throws {
    let chain = try DescriptorText.read(DescriptorText.chain)
    #expect(chain.newFileName(new) == "root.hds.\(new)")
    let moved = DescriptorText.chain.changing(
      "<File>root.hds</File>", to: "<File>../base/disk.\(DescriptorText.guid(5))</File>")
    #expect(try DescriptorText.read(moved).newFileName(new) == "disk.\(new)")
  }

  @Test("Any sequence of them keeps the tree sound, and every file with one shot")
  func sequences() throws {
    let seed: UInt64 = 20_261_125
    var random = SeededGenerator(seed: seed)
    var descriptor = try DescriptorText.read(DescriptorText.tree)
    var files = Set(descriptor.shots.map(\.file))
    for step in 0..<1000 {
      let guids = descriptor.shots.map(\.guid)
      let guid = guids[Int.random(in: 0..<guids.count, using: &random)]
      let file = "file\(step)"
      do throws(DescriptorError) {
        switch Int.random(in: 0..<6, using: &random) {
        case 0:
          try descriptor.addSnapshot(.random(using: &random), newTopFile: file)
          files.insert(file)
        case 1:
          let keep: GUID? = Bool.random(using: &random) ? .random(using: &random) : nil
          let gone = try descriptor.switchTop(to: guid, newTopFile: file, keepingTopAs: keep)
          if let gone { files.remove(gone.file) }
          files.insert(file)
        case 2: files.remove(try descriptor.mergeForward(guid).file)
        case 3: files.remove(try descriptor.mergeIntoParent(guid))
        case 4: files.remove(try descriptor.removeLeaf(guid).file)
        default: try descriptor.mark(guid, as: Bool.random(using: &random) ? .temporary : nil)
        }
      } catch { continue }
      #expect(Set(descriptor.shots.map(\.file)) == files, "seed \(seed), step \(step)")
      #expect(try Descriptor(parsing: descriptor.file) == descriptor, "seed \(seed), step \(step)")
    }
  }
}
