internal import Glibc
internal import PloopIO
internal import TestSupport

/// A bare program on libmicrohttpd that answers with the same bytes (Benchmarks/reference).
final class HTTPReference {
  let address: String
  private let child: ChildProcess

  /// Compiles it, and starts it.
  ///
  /// - Parameter folder: where it may leave files.
  init(answering body: [UInt8], in folder: String) throws {
    let program = try Reference.compile("http-reference", "-lmicrohttpd", in: folder)
    try Tool.shell("rm -f '\(program).port'")
    guard let file = fopen("\(program).body", "w") else {
      throw BenchFailure("\(program).body cannot be written")
    }
    fwrite(body, 1, body.count, file)
    fclose(file)
    child = try ChildProcess(
      [program, "\(program).body"], output: "\(program).port", errors: "\(program).log")
    try Tool.awaitText("\n", in: "\(program).port")
    address = "127.0.0.1:\(try Tool.shell("cat '\(program).port'").output.trimmingNewline)"
  }

  func stop() { child.end() }
}
