internal import TestSupport

/// A bare program that has files share blocks, as copy-on-write does, without a server.
final class CloneReference {
  static let name = "FICLONERANGE"
  private let program: String
  private let source: String
  private let clusters: Int

  /// - Parameter folder: on the file system that is measured.
  init(in folder: String, bytes: Int) throws {
    program = try Reference.compile("clone-reference", "-pthread", in: folder)
    source = "\(folder)/source"
    clusters = bytes >> 20
    try Tool.shell("yes ploopd | head -c \(clusters << 20) >'\(source)' && sync '\(source)'")
  }

  /// 4 KiB into each cluster of a new file.
  func sample(depth: Int) throws -> Report.Sample {
    let target = "\(source)-copy"
    defer { _ = try? Tool.shell("rm -f '\(target)'") }
    let said = try Tool.shell("'\(program)' '\(source)' '\(target)' \(clusters) \(depth)").output
    let numbers = said.split { $0 == " " || $0 == "\n" }.compactMap { Double($0) }
    guard numbers.count == 3 else { throw BenchFailure("\(program) said: \(said)") }
    return Report.Sample(value: numbers[0], p50: numbers[1], p99: numbers[2])
  }
}
