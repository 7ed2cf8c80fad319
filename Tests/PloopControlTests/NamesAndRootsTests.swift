import TestSupport
import Testing

@testable import PloopControl

@Suite("Names, roots and who has a file")
struct NamesAndRootsTests {
  @Test("A name is 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit")
  func names() {
    for name in ["a", "0", "vm-1.disk_2", String(repeating: "x", count: 63)] {
      #expect(Names.isValid(name), "\(name)")
    }
    let wrong = [
      "", "-a", ".a", "_a", "A", "a b", "a/b", "a:b", "ä", "a\u{0}", "a\n",
      String(repeating: "x", count: 64),
    ]
    for name in wrong { #expect(!Names.isValid(name), "\(name)") }
  }

  @Test("Labels are few and short")
  func labels() {
    #expect(throws: Never.self) { try Names.require(labels: ["a/b~c": "anything at all"]) }
    #expect(throws: ServiceError.self) { try Names.require(labels: ["": "x"]) }
    #expect(throws: ServiceError.self) {
      try Names.require(labels: ["a": String(repeating: "x", count: 256)])
    }
    let many = Dictionary(uniqueKeysWithValues: (0..<65).map { ("l\($0)", "") })
    #expect(throws: ServiceError.self) { try Names.require(labels: many) }
  }

  @Test("A path is taken apart the same way however it is written, and never leaves its root")
  func paths() throws {
    let folder = try TemporaryFolder()
    let one = try Roots([(name: "main", path: folder.path)])
    let two = try Roots([(name: "main", path: folder.path), (name: "b", path: folder.path)])
    #expect(try one.locate("vm1/top.hds", pointer: "").path == "main:vm1/top.hds")
    #expect(try one.locate("main:./vm1//top.hds", pointer: "").path == "main:vm1/top.hds")
    #expect(try one.locate("vm1/a:b", pointer: "").path == "main:vm1/a:b")
    #expect(try two.locate("b:x", pointer: "").path == "b:x")
    let refused: [(Roots, String, ServiceError.Code)] = [
      (two, "x", .valueImpossible), (one, "c:x", .valueImpossible), (one, "", .valueImpossible),
      (one, "main:", .valueImpossible), (one, "a\u{0}b", .valueImpossible),
      (one, "..", .pathOutsideRoot), (one, "a/../b", .pathOutsideRoot),
      // A slash with a combining mark behind it is a slash to the kernel.
      (one, "../\u{301}x", .pathOutsideRoot), (one, "/\u{301}x", .pathOutsideRoot),
      (one, "main:a/\u{301}b/../\u{301}c", .pathOutsideRoot),
      (one, "/etc/passwd", .pathOutsideRoot), (one, "main:/etc/passwd", .pathOutsideRoot),
    ]
    for (roots, path, code) in refused {
      #expect("\(path)") {
        _ = try roots.locate(path, pointer: "/deltas/0/path")
      } throws: { error in
        (error as? ServiceError)?.code == code
          && (error as? ServiceError)?.pointer == "/deltas/0/path"
      }
    }
  }

  @Test("A root that is not there, is called wrongly, or is there twice, is said at the start")
  func roots() throws {
    let folder = try TemporaryFolder()
    #expect(throws: ServiceError.self) { try Roots([(name: "main", path: "\(folder.path)/no")]) }
    #expect(throws: ServiceError.self) { try Roots([(name: "Main", path: folder.path)]) }
    #expect(throws: ServiceError.self) {
      try Roots([(name: "a", path: folder.path), (name: "a", path: folder.path)])
    }
  }

  @Test("Files are shared for reading only, whatever they are called by")
  func registry() throws {
    var registry = FileRegistry()
    func location(_ name: String) -> Roots.Location { .init(root: "main", components: [name]) }
    func refusal(
      _ names: [String], _ user: FileRegistry.User, readonly: Bool = false
    ) -> ServiceError? {
      do throws(ServiceError) {
        try registry.claim(names.map { (location($0), nil) }, for: user, readonly: readonly)
        return nil
      } catch { return error }
    }
    func claim(_ names: [String], _ device: String, readonly: Bool = false) -> ServiceError.Code? {
      refusal(names, .device(device), readonly: readonly)?.code
    }
    #expect(claim(["base", "top"], "a") == nil)
    #expect(claim(["top"], "b") == .imageInUse)
    #expect(claim(["top"], "b", readonly: true) == .imageInUse)
    #expect(claim(["base"], "b") == .imageHasChildren)
    #expect(claim(["top", "other"], "b") == .imageInUse)
    #expect(claim(["base"], "b", readonly: true) == nil)
    #expect(claim(["base", "second"], "c") == nil)
    registry.release(.device("a"))
    #expect(claim(["top"], "d") == nil)
    #expect(claim(["base"], "e") == .imageHasChildren)
    registry.release(.device("c"))
    #expect(claim(["base"], "e") == .imageInUse)
    registry.release(.device("b"))
    #expect(claim(["base"], "e") == nil)
    // What an export reads its own device may write, and nobody else.
    #expect(refusal(["x", "y"], .export("look", of: "f"), readonly: true) == nil)
    #expect(claim(["x", "y"], "f") == nil)
    registry.release(.device("f"))
    let thief = refusal(["y"], .device("g"))
    #expect(thief?.code == .imageInUse && thief?.holder?.kind == "export")
    #expect(thief?.holder?.id == "look")
    #expect(claim(["x"], "g") == .imageHasChildren)
    #expect(claim(["y"], "g", readonly: true) == nil)
    registry.releaseAll(of: "f")
    registry.release(.device("g"))
    #expect(claim(["y"], "h") == nil && registry.user(of: location("y"), but: "f") == .device("h"))
  }
}
