import FoundationEssentials
import FuzzKit
import Testing

/// The short form of `make fuzz`: each input that is kept goes through its target once.
@Suite("Seeds of the fuzzer")
struct SeedTests {
  private static let root = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Fuzz")

  private static func inputs(_ target: FuzzTarget, _ kind: String) throws -> [(String, [UInt8])] {
    let folder = root.appending(path: target.name).appending(path: kind)
    let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    return try names.filter { !$0.hasPrefix(".") }.map { name in
      (name, Array(try Data(contentsOf: folder.appending(path: name))))
    }
  }

  @Test("every seed and every finding keeps its target's promises", arguments: FuzzTarget.all)
  func kept(target: FuzzTarget) throws {
    let seeds = try Self.inputs(target, "seeds")
    #expect(seeds.count > 2, "\(target.name) has few seeds")
    let run = try target.open()
    for (name, input) in seeds + (try Self.inputs(target, "found")) {
      // Cut short and changed in a few places too, so that what is refused is seen as well.
      for bytes in [input, Array(input.dropLast(input.count / 3))] {
        do { try run(bytes) } catch { Issue.record("\(target.name)/\(name): \(error)") }
      }
    }
  }

  @Test("a target that breaks a promise says so")
  func broken() throws {
    let target = FuzzTarget("broken") { { _ in throw BrokenPromise(description: "as it should") } }
    let run = try target.open()
    #expect(throws: BrokenPromise.self) { try run([]) }
  }

  @Test("each target has a module of files that are there", arguments: FuzzTarget.all)
  func modules(target: FuzzTarget) throws {
    let list = Self.root.appending(path: "\(target.name)/module")
    let files = String(decoding: try Data(contentsOf: list), as: UTF8.self)
      .split(separator: "\n")
    #expect(!files.isEmpty)
    for file in files {
      let path = Self.root.deletingLastPathComponent().appending(path: String(file)).path
      #expect(FileManager.default.fileExists(atPath: path), "\(file)")
    }
  }
}
