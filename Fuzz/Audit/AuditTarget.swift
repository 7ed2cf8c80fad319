internal import PloopHTTP
internal import PloopIO
internal import PloopJSON

/// An audit log, as `ploopd audit verify` reads it and as the service goes on with it.
///
/// Input: how the log is made, bits: whether each line is what is inside of one, and number and hash are put around
/// it; whether the first is number 1; whether numbers are left out behind it; whether the last line is cut off. Then
/// which byte is changed (2 bytes), how many bytes the head has, the head, and the lines.
enum AuditTarget {
  private static let path = "audit.jsonl"
  private static let newline = UInt8(ascii: "\n")

  static func run(_ input: [UInt8]) throws {
    var start = InputHead(input)
    let flags = start.byte()
    let place = Int(start.number(UInt16.self))
    let headCount = Int(start.byte())
    let rest = start.body
    let head = Array(rest.prefix(headCount))
    var log = Array(rest.dropFirst(headCount))
    if flags & 1 != 0 {
      log = chained(log, from: flags & 2 != 0 ? 1 : 40, leavingOut: flags & 4 != 0 ? 2 : 0)
    }
    if flags & 8 != 0 { log = Array(log.dropLast()) }
    let whole = log.split(separator: newline, omittingEmptySubsequences: false).dropLast()
      .map(Array.init)
    let verifier = try? verified(whole)
    if let verifier { try change(whole, verifier, place) }
    try goOn(log, head, whole, isSound: verifier != nil)
  }

  private static func chained(_ pieces: [UInt8], from first: Int, leavingOut gap: Int) -> [UInt8] {
    var log: [UInt8] = []
    var previous = String(repeating: "0", count: 64)
    var number = first
    for piece in pieces.split(separator: newline) {
      let line =
        Array("{\"n\":\(number),".utf8) + piece + Array(",\"previous\":\"\(previous)\"}".utf8)
      previous = SHA256.hexDigest(line)
      number += number == first ? 1 + gap : 1
      log += line + [newline]
    }
    return log
  }

  private static func verified(_ lines: [[UInt8]], noted: String? = nil) throws -> AuditVerifier {
    var verifier = AuditVerifier(noted: noted)
    for line in lines { try verifier.take(line) }
    return verifier
  }

  /// Whatever is done to a line before the last one is seen.
  private static func change(
    _ lines: [[UInt8]], _ verifier: AuditVerifier, _ place: Int
  ) throws {
    try promise(verifier.lineCount == UInt64(lines.count), "\(verifier.lineCount) lines")
    try promise(
      lines.isEmpty || verifier.head.hash == SHA256.hexDigest(lines[lines.count - 1]),
      "another head")
    // Nobody vouches for what is before lines that a crash has taken.
    guard lines.count > 1, verifier.missingCount == 0,
      !lines.contains(where: { (try? JSONParser.parse($0))?.member("missing_from") != nil })
    else { return }
    let index = place % (lines.count - 1)
    var others = lines
    others[index][(place / lines.count) % others[index].count] ^= 1 + UInt8(place >> 13)
    try promise((try? verified(others)) == nil, "line \(index) was changed")
    others = lines
    others.insert(lines[index], at: index)
    try promise((try? verified(others)) == nil, "line \(index) is there twice")
    others = lines
    others.swapAt(index, index + 1)
    try promise((try? verified(others)) == nil, "line \(index) was moved")
    if index > 0 {
      others = lines
      others.remove(at: index)
      try promise((try? verified(others)) == nil, "line \(index) was left out")
    }
    let noted = SHA256.hexDigest(lines[index])
    try promise(try verified(lines, noted: noted).hasSeenNoted, "a head is not found")
    let rest = Array(lines[..<index])
    try promise(try !verified(rest, noted: noted).hasSeenNoted, "a head is found that is cut off")
  }

  /// The service goes on behind it, whatever the head says.
  private static func goOn(
    _ log: [UInt8], _ head: [UInt8], _ whole: [[UInt8]], isSound: Bool
  ) throws {
    let folder = try FuzzFolder()
    try folder.put(path, log)
    try folder.put("audit.head", head)
    try begin(folder)
    let after = try folder.folder.bytes(of: path, limit: 1 << 20)
    let lines = after.split(separator: newline, omittingEmptySubsequences: false).map(Array.init)
    try promise(lines.last == [], "the last line has no end")
    try promise(Array(lines.prefix(whole.count)) == whole, "a line has changed")
    let added = lines.dropFirst(whole.count).dropLast()
    try promise(added.count <= 1, "\(added.count) lines of one begin")
    if isSound {
      do { _ = try verified(whole + added) } catch {
        throw BrokenPromise(description: "what goes on is not verified: \(error)")
      }
    }
    // That was the end, so the next begin has nothing to tell.
    try begin(folder)
    let again = try folder.folder.bytes(of: path, limit: 1 << 20)
    try promise(again == after, "a begin behind an end has written something")
  }

  private static func begin(_ folder: FuzzFolder) throws {
    let place = folder.folder.path
    let log = AuditLog(
      path: "\(place)/\(path)", headPath: "\(place)/audit.head", patienceMilliseconds: 20_000
    ) {
      _ in
    }
    log.close()
  }
}
