import Foundation
import PloopIO
import PloopJSON
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("The audit log")
struct AuditTests {
  let folder: TemporaryFolder
  let complaints = Monitor<[String]>([])
  private var path: String { "\(folder.path)/audit.jsonl" }

  init() throws { folder = try TemporaryFolder() }

  /// - Parameter patience: milliseconds; by default longer than any disk of ours takes.
  private func open(patience: Int = 600_000) -> AuditLog {
    let complaints = complaints
    return AuditLog(
      path: path, headPath: "\(folder.path)/audit.head", patienceMilliseconds: patience
    ) { words in
      complaints.update { $0.append(words) }
    }
  }

  private func add(_ log: AuditLog, _ what: String, isStranger: Bool = false, now: UInt64 = 1) {
    log.append(
      [.init(name: "what", value: .string(what))], refused: isStranger ? "" : nil, now: now)
  }

  private func lines(_ name: String = "audit.jsonl") throws -> [[UInt8]] {
    try Tool.shell("cat '\(folder.path)/\(name)'").output.split(separator: "\n").map {
      Array($0.utf8)
    }
  }

  private func fault(_ lines: [[UInt8]], noted: String? = nil) -> String? {
    var verifier = AuditVerifier(noted: noted)
    do throws(AuditVerifier.Fault) { for line in lines { try verifier.take(line) } } catch {
      return error.description
    }
    return verifier.hasSeenNoted ? nil : "the noted head is missing"
  }

  /// What was added; the lines that tell of crashes have none.
  private func texts(_ lines: [[UInt8]]) -> [JSON] {
    lines.compactMap { (try? JSONParser.parse($0))?.member("what") }
  }

  @Test("any line that is changed, left out, moved, doubled or put in is noticed")
  func tampering() throws {
    let log = open()
    for number in 0..<6 { add(log, "entry \(number)") }
    let good = try lines()
    #expect(good.count == 6 && fault(good) == nil)
    for index in good.indices {
      // Each byte but those of the last line, which nothing vouches for yet.
      for position in good[index].indices where index < 5 {
        var changed = good
        changed[index][position] ^= 1
        #expect(fault(changed) != nil, "byte \(position) of line \(index)")
      }
      var others = good
      others.remove(at: index)
      // Without its first lines it is what is left of a log, and without its last ones a head tells.
      #expect((fault(others) == nil) == (index == 0 || index == 5))
      others = good
      others.insert(good[index], at: index)
      #expect(fault(others) != nil)
      guard index < 5 else { continue }
      others = good
      others.swapAt(index, index + 1)
      #expect(fault(others) != nil)
    }
    for line in ["", "{}", "[]", "{\"n\":7}", "x"] {
      #expect(fault(good + [Array(line.utf8)]) != nil)
    }
    var verifier = AuditVerifier()
    for line in good { try verifier.take(line) }
    #expect(verifier.lineCount == 6 && verifier.first == 1 && verifier.head.number == 6)
    #expect(fault(good, noted: verifier.head.hash) == nil)
    #expect(fault(Array(good[..<5]), noted: verifier.head.hash) != nil)
    // A log that was written anew, of the same words, has other hashes from the change on.
    let other = AuditTests.chain(["entry 0", "another", "entry 2", "entry 3", "entry 4", "entry 5"])
    #expect(fault(other) == nil && fault(other, noted: verifier.head.hash) != nil)
  }

  private static func chain(_ texts: [String]) -> [[UInt8]] {
    var chain = AuditChain.beginning
    return texts.map { text in
      let (next, line) = chain.adding([.init(name: "what", value: .string(text))])
      chain = next
      return line
    }
  }

  @Test("however many lines a log says that it has lost, they are counted as far as it goes")
  func manyLost() throws {
    var (chain, verifier) = (AuditChain.beginning, AuditVerifier())
    for _ in 0..<2_100 {
      let (next, line) = chain.adding([.init(name: "lost", value: .integer(JSON.largestNumber))])
      chain = next
      try verifier.take(line)
    }
    #expect(verifier.lineCount == 2_100 && verifier.lostCount == .max)
  }

  @Test(
    "a head that none of ours can be counts as none",
    arguments: [
      "00000000000000000000 \(String(repeating: "7", count: 64)) 0 0 open",
      "18446744073709551615 \(String(repeating: "7", count: 64)) 0 0 open",
      "00009007199254740991 \(String(repeating: "7", count: 64)) 0 0 open",
      "00000000000000000007 \(String(repeating: "\u{1}", count: 64)) 0 0 open",
    ])
  func headOfNobody(head: String) throws {
    try Data("\(head)\n".utf8).write(to: URL(fileURLWithPath: "\(folder.path)/audit.head"))
    let log = open()
    add(log, "a")
    log.close()
    let written = try lines()
    #expect(fault(written) == nil && texts(written) == [.string("a")], "\(written)")
  }

  @Test("the chain goes on when the file is moved away, and after restarts at any moment of that")
  func rotation() throws {
    var log = open()
    add(log, "a")
    try Tool.shell("cd '\(folder.path)' && mv audit.jsonl audit.1")
    add(log, "b")
    log.close()
    log = open()
    add(log, "c")
    try Tool.shell("cd '\(folder.path)' && mv audit.jsonl audit.2")
    log.close()
    log = open()
    add(log, "d")
    try Tool.shell("cd '\(folder.path)' && mv audit.jsonl audit.3 && touch audit.jsonl")
    add(log, "e")
    // A copy is made, and what was there is cut off.
    try Tool.shell("cd '\(folder.path)' && cp audit.jsonl audit.4 && truncate -s 0 audit.jsonl")
    add(log, "f")
    let all = try ["audit.1", "audit.2", "audit.3", "audit.4", "audit.jsonl"].flatMap(lines)
    #expect(texts(all) == ["a", "b", "c", "d", "e", "f"].map(JSON.string))
    #expect(fault(all) == nil)
    #expect(complaints.withLock { $0 } == [])
  }

  @Test("what a crash has cut off is removed, and a head that was not written is not missed")
  func crash() throws {
    var log = open()
    for text in ["a", "b"] { add(log, text) }
    let first = try #require(try lines().first)
    log = open()
    try Tool.shell("cd '\(folder.path)' && printf '{\"n\":3,\"wh' >> audit.jsonl")
    log = open()
    add(log, "c")
    #expect(complaints.withLock { $0.count } == 1)
    let head = AuditChain.behind(first)?.chain
    try Tool.shell(
      "printf '%020d %s %020d %020d open\\n' 1 \(head?.hash ?? "") 0 0 > '\(folder.path)/audit.head'"
    )
    log = open()
    add(log, "d")
    #expect(texts(try lines()) == ["a", "b", "c", "d"].map(JSON.string))
    #expect(fault(try lines()) == nil)
    try Tool.shell("rm '\(folder.path)/audit.head'")
    log = open()
    add(log, "e")
    #expect(try fault(lines()) == nil && texts(lines()).last == .string("e"))
  }

  @Test("lines that a crash took are told, and nothing else may be missing")
  func missing() throws {
    var log = open()
    for number in 0..<6 { add(log, "entry \(number)") }
    // The head has come to the disk, and the last two lines have not.
    try Tool.shell("cd '\(folder.path)' && sed -i '5,$d' audit.jsonl")
    log = open()
    add(log, "later")
    log.close()
    let all = try lines()
    #expect(all.count == 6 && fault(all) == nil)
    var verifier = AuditVerifier()
    for line in all { try verifier.take(line) }
    #expect(verifier.missingCount == 2 && verifier.crashCount == 1)
    // Without one more it is another gap than the one that is told of.
    #expect(fault(Array(all[..<3] + all[4...])) != nil)
    log = open()
    add(log, "after an end")
    #expect(try lines().count == 7 && fault(lines()) == nil)
  }

  @Test("what was lost before a restart is told after it")
  func lostBefore() throws {
    var log = open()
    add(log, "a")
    try Tool.shell("cd '\(folder.path)' && mv audit.jsonl audit.1 && ln -s /dev/full audit.jsonl")
    for _ in 0..<3 { add(log, "lost") }
    log.close()
    try Tool.shell("rm '\(folder.path)/audit.jsonl'")
    log = open()
    add(log, "b")
    #expect(try JSONParser.parse(try #require(lines().first)).member("lost") == .integer(3))
  }

  @Test("a disk that does not answer holds up answers for a second, and then none")
  func stuck() throws {
    // Nobody reads it: what is written waits once it is full.
    try Tool.shell("mkfifo '\(path)'")
    let log = open(patience: 100)
    let line = String(repeating: "x", count: 4_000)
    for _ in 0..<40 { add(log, line) }
    #expect(log.isFailing)
    let start = monotonicNanoseconds()
    for _ in 0..<2_000 { add(log, line) }
    // Had each waited, it would be more than half an hour.
    #expect(monotonicNanoseconds() - start < 600_000_000_000)
    guard case .number(let lost)? = log.metrics.last?.samples.first?.value else {
      Issue.record("no such metric")
      return
    }
    #expect(lost >= 900)
  }

  @Test("a full disk loses lines, says so, and the chain goes on when there is room")
  func fullDisk() throws {
    let log = open()
    add(log, "a")
    #expect(!log.isFailing)
    try Tool.shell("cd '\(folder.path)' && mv audit.jsonl audit.1 && ln -s /dev/full audit.jsonl")
    for _ in 0..<3 { add(log, "lost") }
    #expect(log.isFailing)
    #expect(complaints.withLock { $0.count } == 1)
    try Tool.shell("rm '\(folder.path)/audit.jsonl'")
    add(log, "b")
    #expect(!log.isFailing && complaints.withLock { $0.count } == 2)
    add(log, "c")
    let all = try ["audit.1", "audit.jsonl"].flatMap(lines)
    #expect(texts(all) == ["a", "b", "c"].map(JSON.string) && fault(all) == nil)
    let lost = try all.map { try JSONParser.parse($0).member("lost") }
    #expect(lost == [nil, .integer(3), nil])
    var verifier = AuditVerifier()
    for line in all { try verifier.take(line) }
    #expect(verifier.lostCount == 3)
    #expect(log.metrics.map(\.name) == ["ploopd_audit_lines_total", "ploopd_audit_lost_total"])
  }

  @Test("a folder that is not there is told, and is looked for again")
  func missingFolder() throws {
    let complaints = complaints
    let log = AuditLog(
      path: "\(folder.path)/x/audit", headPath: "\(folder.path)/head", patienceMilliseconds: 600_000
    ) { words in
      complaints.update { $0.append(words) }
    }
    #expect(log.isFailing)
    add(log, "lost")
    try Tool.shell("mkdir '\(folder.path)/x'")
    add(log, "a")
    #expect(try !log.isFailing && fault(lines("x/audit")) == nil)
  }

  @Test("refusals fill no disk, and what is done is always written down")
  func strangers() throws {
    let log = open()
    for _ in 0..<1000 { add(log, "stranger", isStranger: true) }
    #expect(try lines().count == 100)
    for _ in 0..<50 { add(log, "known") }
    let all = try lines()
    #expect(all.count == 150)
    #expect(try JSONParser.parse(all[100]).member("suppressed") == .integer(900))
    for _ in 0..<50 { add(log, "stranger", isStranger: true, now: 2_000_000_001) }
    #expect(try lines().count == 170)
  }

  @Test("what is changed or refused is written down, with whose it was and no secret")
  func entries() async throws {
    let log = open()
    let service = try FakeService(devices: ["vm1", "other"])
    let router = Router(service, access: .local(), audit: log)
    func ask(
      _ method: String, _ path: String, _ body: String = "", devices: [String]? = nil,
      from peer: SocketPeer = .root
    ) async {
      var request = HTTPRequest(
        from: peer, method: method, target: path.utf8,
        headers: [("Host", "localhost"), ("Content-Type", "application/json")],
        body: Array(body.utf8))
      if let devices {
        request.caller = .success(
          Caller(actor: "token:t", grant: Grant([.operate], devices: DeviceGlobs(devices))))
      }
      _ = await router.answer(request, requestID: "r1")
    }
    let body = #"{"name":"door","device":"vm1","description":"secret words"}"#
    await ask("POST", "/v1/exports", body)
    await ask("GET", "/v1/devices/vm1")
    await ask("GET", "/v1/devices/none")
    await ask("DELETE", "/v1/devices/none?mode=hard")
    await ask("GET", "/v1/devices/other", devices: ["vm*"])
    await ask("GET", "/v1/exports/other", devices: ["none"])
    await ask("POST", "/v1/targets", "{}", devices: ["vm*"])
    await ask("GET", "/v1", from: .unknown)
    await ask("POST", "/nothing", "{}")
    await ask("OPTIONS", "/v1")
    let entries = try lines().map { try JSONParser.parse($0) }
    func column(_ name: String) -> [String] {
      entries.map { String(decoding: ($0.member(name) ?? .null).encoded, as: UTF8.self) }
    }
    #expect(column("status") == ["201", "404", "404", "404", "403", "401", "404"])
    #expect(
      column("code") == [
        "null", #""device-not-found""#, #""device-not-found""#, #""export-not-found""#,
        #""scope-missing""#, #""unauthorized""#, #""not-found""#,
      ])
    #expect(
      column("actor") == [
        #""uid:0""#, #""uid:0""#, #""token:t""#, #""token:t""#, #""token:t""#, #""unknown""#,
        #""uid:0""#,
      ])
    #expect(
      column("route")[1] == #""/v1/devices/{id}""# && column("path")[1] == #""/v1/devices/none""#)
    #expect(column("scope")[0] == #""operate""# && column("location")[0] == #""/v1/exports/door""#)
    #expect(column("body_sha256")[0] == "\"\(SHA256.hexDigest(Array(body.utf8)))\"")
    #expect(try !Tool.shell("cat '\(path)'").output.contains("secret words"))
    #expect(fault(try lines()) == nil)
  }
}
