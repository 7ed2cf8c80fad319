internal import ArgumentParser
internal import Glibc
internal import PloopHTTP
internal import PloopIO

/// `ploopd audit`: what can be done with the log of who did what.
struct AuditCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "audit", abstract: "Look after the audit log.",
    subcommands: [AuditVerifyCommand.self])
}

struct AuditVerifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify", abstract: "Say whether lines were changed, left out, moved or put in.",
    discussion: """
      Files are named oldest first, with those that were moved away when logs were rotated; '-' is \
      standard input. Note the head that it prints somewhere else: given back later by --head, it \
      shows that nothing before was cut off or written anew.
      """)

  private static let mostLineBytes = 1 << 20

  @Argument(help: "The log, in its files, oldest first.") var files: [String]
  @Option(help: ArgumentHelp("A head that was printed earlier.", valueName: "hash"))
  var head: String?

  func run() throws {
    try reporting {
      var verifier = AuditVerifier(noted: head)
      for file in files { try AuditVerifyCommand.verify(file, &verifier) }
      guard verifier.hasSeenNoted else {
        throw CommandFault(
          "the head \(head ?? "") is not in the log: it was cut off or written anew")
      }
      let range = verifier.first.map { " (\($0) to \(verifier.head.number))" } ?? ""
      print("\(verifier.lineCount) lines\(range) are as they were written")
      if verifier.lostCount > 0 { print("\(verifier.lostCount) lines could not be written") }
      if verifier.crashCount > 0 {
        print(
          "\(verifier.crashCount) times the service did not come to its end; \(verifier.missingCount) lines are missing there"
        )
      }
      if verifier.lineCount > 0 { print("head \(verifier.head.hash)") }
    }
  }

  private static func verify(_ file: String, _ verifier: inout AuditVerifier) throws {
    let descriptor = file == "-" ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw IOError.last("open", file) }
    defer { if descriptor != STDIN_FILENO { close(descriptor) } }
    var rest: [UInt8] = []
    var number = 0
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw IOError.last("read", file) }
      guard count > 0 else { break }
      rest += chunk[..<count]
      var start = 0
      while let end = rest[start...].firstIndex(of: UInt8(ascii: "\n")) {
        number += 1
        try take(Array(rest[start..<end]), "\(file):\(number)", &verifier)
        start = end + 1
      }
      rest.removeFirst(start)
      guard rest.count <= mostLineBytes else {
        throw CommandFault("\(file):\(number + 1): the line is too long")
      }
    }
    guard rest.isEmpty else { throw CommandFault("\(file): the last line is cut off") }
  }

  private static func take(
    _ line: [UInt8], _ place: String, _ verifier: inout AuditVerifier
  ) throws {
    do throws(AuditVerifier.Fault) { try verifier.take(line) } catch {
      throw CommandFault("\(place): \(error)")
    }
  }
}
