import PloopIO
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("Who asks")
struct IdentityTests {
  let folder: TemporaryFolder
  let file: TokenFile
  let complaints = Monitor<[String]>([])

  init() throws {
    folder = try TemporaryFolder()
    file = TokenFile(in: folder.path)
  }

  private func access(_ tcp: AccessControl.TCP = .token) -> AccessControl {
    let complaints = complaints
    return AccessControl(
      PeerRules(ownUser: 500, admins: 60, readers: 61), tcp: tcp,
      book: TokenBook(file) { complaint in complaints.update { $0.append(complaint) } })
  }

  /// The actor, or the slug of the refusal.
  private func ask(
    _ access: AccessControl, from peer: SocketPeer, _ authorization: String...
  ) -> String {
    let request = HTTPRequest(
      from: peer, method: "GET", target: "/v1".utf8,
      headers: authorization.map { ("Authorization", $0) })
    do throws(Problem) { return try access.caller(of: request).actor } catch {
      return error.error.code.rawValue
    }
  }

  private func add(
    _ name: String, _ grant: Grant = Grant([.read]), networks: [String] = [],
    expiresAt: Double? = nil
  ) throws -> String {
    let secret = TokenSecret.make()
    let token = Token(
      name: name, digest: secret.digest, grant: grant, networks: networks.compactMap(Network.init),
      expiresAt: expiresAt, createdAt: 1)
    try file.change { $0.append(token) }
    return "Bearer \(secret.text)"
  }

  private func tcp(_ host: String = "127.0.0.1") -> SocketPeer { .tcp(host: host, port: "4000") }

  private func unix(_ user: UInt32, _ groups: UInt32...) -> SocketPeer {
    .unix(process: 1, user: user, groups: groups)
  }

  @Test("by the Unix socket: root, the own user and one group do everything, another reads")
  func peers() {
    let rules = PeerRules(ownUser: 500, admins: 60, readers: 61)
    #expect(rules.grant(user: 0, groups: [9]) == .all)
    #expect(rules.grant(user: 500, groups: [9]) == .all)
    #expect(rules.grant(user: 7, groups: [9, 60]) == .all)
    #expect(rules.grant(user: 7, groups: [61, 60]) == .all)
    #expect(rules.grant(user: 7, groups: [9, 61]) == Grant([.read]))
    #expect(rules.grant(user: 7, groups: [0]) == nil)
    #expect(rules.grant(user: 7, groups: []) == nil)
    let none = PeerRules(ownUser: 500, admins: nil, readers: nil)
    #expect(none.grant(user: 7, groups: [60, 61]) == nil)
    let access = access()
    #expect(ask(access, from: unix(0)) == "uid:0")
    #expect(ask(access, from: unix(7, 61)) == "uid:7")
    #expect(ask(access, from: unix(7, 62)) == "peer-not-allowed")
    #expect(ask(access, from: .unknown) == "unauthorized")
    access.replace(PeerRules(ownUser: 500, admins: nil, readers: 62))
    #expect(ask(access, from: unix(7, 62)) == "uid:7")
    #expect(ask(access, from: unix(7, 61)) == "peer-not-allowed")
  }

  @Test("groups are found by their names, and nobody is in one that does not exist")
  func groupNames() {
    let rules = PeerRules(adminGroup: "no-such-group", readGroup: "daemon")
    #expect(rules.grant(user: 4_000_000, groups: [1]) == Grant([.read]))
    #expect(rules.grant(user: 4_000_000, groups: [0]) == nil)
  }

  @Test("a scope includes those before it, and the bytes of disks are a matter of their own")
  func scopes() {
    let cases: [(Scope, Set<Scope>)] = [
      (.read, [.read]), (.operate, [.read, .operate]), (.admin, [.read, .operate, .admin]),
      (.data, [.data]),
    ]
    for (given, allowed) in cases {
      #expect(Set(Scope.allCases.filter(Grant([given]).allows)) == allowed)
    }
    #expect(Scope.allCases.allSatisfy(Grant.all.allows))
    #expect(!Scope.allCases.contains(where: Grant([]).allows))
  }

  @Test("TCP wants a token, unless nobody is to be asked")
  func tokens() throws {
    let access = access()
    #expect(ask(access, from: tcp()) == "unauthorized")
    let first = try add("one")
    let second = try add("two", networks: ["10.0.0.0/8", "::1"])
    #expect(ask(access, from: tcp(), first) == "token:one")
    #expect(ask(access, from: tcp(), "bearer  \(first.dropFirst(7))") == "token:one")
    #expect(ask(access, from: tcp("10.1.2.3"), second) == "token:two")
    #expect(ask(access, from: tcp("::ffff:10.1.2.3"), second) == "token:two")
    #expect(ask(access, from: tcp("::1"), second) == "token:two")
    #expect(ask(access, from: tcp("11.1.2.3"), second) == "unauthorized")
    // A token may be for less than the user could do.
    #expect(ask(access, from: unix(0), first) == "token:one")
    #expect(ask(access, from: unix(7), first) == "token:one")
    #expect(ask(access, from: unix(0), second) == "unauthorized")
    #expect(ask(self.access(.none), from: tcp(), "Bearer nonsense") == "anonymous")
  }

  @Test(
    "what is no token of ours is refused over TCP, and is a proxy's business on the Unix socket")
  func noTokens() throws {
    let good = try add("one")
    let wrong = [
      "Basic dXNlcjpwYXNz", "Bearer", "Bearer abc", good + "x", String(good.dropLast()),
      "\(good) more", good.uppercased(), "", String(good.dropFirst(7)),
    ]
    for (index, value) in wrong.enumerated() {
      #expect(ask(access(), from: tcp("192.0.2.\(index)"), value) == "unauthorized", "\(value)")
    }
    #expect(ask(access(), from: tcp(), good, good) == "unauthorized")
    #expect(ask(access(), from: unix(0), "Basic dXNlcjpwYXNz") == "uid:0")
    #expect(ask(access(), from: unix(0), "Bearer somebody-elses") == "uid:0")
    #expect(ask(access(), from: unix(0), good + "x") == "unauthorized")
  }

  @Test("a revoked token is refused from the next request on, an expired one from its end on")
  func ends() throws {
    let access = access()
    let (one, two) = (try add("one"), try add("two", expiresAt: wallClockSeconds() - 1))
    let three = try add("three", expiresAt: wallClockSeconds() + 3600)
    #expect(ask(access, from: tcp(), one) == "token:one")
    #expect(ask(access, from: tcp(), two) == "unauthorized")
    #expect(ask(access, from: tcp(), three) == "token:three")
    try file.change { $0.removeAll { $0.name == "one" } }
    #expect(ask(access, from: tcp(), one) == "unauthorized")
    #expect(ask(access, from: tcp(), three) == "token:three")
    let token = Token(name: "t", digest: "", grant: .all, expiresAt: 100, createdAt: 1)
    #expect(!token.isExpired(at: 99.9) && token.isExpired(at: 100))
  }

  @Test("no secret is in the file, and it is the owner's alone")
  func secrecy() throws {
    let secret = try add("one").dropFirst(7)
    let text = try Tool.shell("cat '\(file.path)'; stat -c %a '\(file.path)'").output
    #expect(!text.contains(secret) && !text.contains(secret.dropFirst(4)))
    #expect(text.hasSuffix("600\n"))
    #expect(secret.utf8.count == 47 && secret.hasPrefix("plp_"))
    #expect(TokenSecret.make().text != TokenSecret.make().text)
  }

  @Test("what is in the file is what was put there")
  func roundTrip() throws {
    let grant = Grant([.operate, .data], devices: DeviceGlobs(["tenant-a-*", "vm?"]))
    _ = try add("one", grant, networks: ["2001:db8::/32"], expiresAt: 4_000_000_000)
    _ = try add("two")
    let tokens = try file.tokens()
    #expect(tokens.map(\.name) == ["one", "two"] && tokens.first?.grant == grant)
    #expect(tokens.first?.networks == [Network("2001:db8::/32")].compactMap { $0 })
    #expect(tokens.first?.expiresAt == 4_000_000_000 && tokens.last?.expiresAt == nil)
    #expect(throws: Tool.Failure.self) {
      try file.change { _ in throw Tool.Failure(description: "") }
    }
    #expect(try file.tokens() == tokens)
  }

  @Test(
    "a damaged file lets nobody in, says so once, and is not overwritten",
    arguments: [
      "", "{", "[]", #"{"version":2,"tokens":[]}"#, #"{"version":1,"tokens":[{}]}"#,
      #"{"version":1,"tokens":[],"more":1}"#, #"{"version":1}"#,
    ])
  func damage(text: String) throws {
    let access = access()
    let good = try add("one")
    try Tool.shell("printf '%s' '\(text)' > '\(file.path)'")
    for _ in 0..<3 { #expect(ask(access, from: tcp(), good) == "unauthorized") }
    #expect(ask(access, from: unix(0)) == "uid:0")
    #expect(complaints.withLock { $0.count } == 1)
    #expect(throws: TokenFile.Damage.self) { try add("two") }
    #expect(try Tool.shell("cat '\(file.path)'").output == text)
  }

  @Test("many changes at once lose none")
  func changes() throws {
    let threads = try (0..<8).map { number in
      try PloopIO.Thread(name: "change", stackBytes: 1 << 20) { [file] in
        for index in 0..<5 {
          try? file.change {
            $0.append(
              Token(
                name: "t\(number)-\(index)", digest: String(repeating: "0", count: 64),
                grant: Grant([.read]), createdAt: 1))
          }
        }
      }
    }
    threads.forEach { $0.join() }
    #expect(try file.tokens().count == 40)
  }

  @Test("wrong ones are throttled at their address, right ones and other addresses are not")
  func throttle() throws {
    let access = access()
    let good = try add("one")
    let bad = "Bearer plp_\(String(repeating: "A", count: 43))"
    let answers = (0..<20).map { _ in ask(access, from: tcp("10.0.0.1"), bad) }
    #expect(answers[..<10].allSatisfy { $0 == "unauthorized" })
    #expect(answers.last == "too-many-failures")
    #expect(ask(access, from: tcp("10.0.0.1"), good) == "token:one")
    #expect(ask(access, from: tcp("10.0.0.2"), bad) == "unauthorized")
    #expect(ask(access, from: tcp("10.0.0.1")) == "unauthorized")
  }

  @Test("failures are forgiven one by one")
  func forgiveness() {
    let throttle = FailureThrottle()
    let second: UInt64 = 1_000_000_000
    for _ in 0..<10 { #expect(throttle.failed("a", now: second) == nil) }
    #expect(throttle.failed("a", now: second) == 8)
    #expect(throttle.failed("a", now: 5 * second) == 4)
    #expect(throttle.failed("a", now: 9 * second) == nil)
    #expect(throttle.failed("a", now: 9 * second) == 8)
    // A clock that seems to go back forgives nothing.
    #expect(throttle.failed("a", now: second) == 8)
    #expect(throttle.failed("a", now: 9 * second) == 8)
    for _ in 0..<10 { #expect(throttle.failed("2001:db8::1", now: second) == nil) }
    #expect(throttle.failed("2001:db8::2", now: second) != nil)
    #expect(throttle.failed("2001:db8:0:1::1", now: second) == nil)
    // Whoever comes from ever new addresses fills no memory.
    for number in 0..<10_000 {
      _ = throttle.failed("10.0.\(number / 256).\(number % 256)", now: 10 * second)
    }
    #expect(throttle.failed("a", now: 10 * second) == nil)
  }

  @Test("networks contain what begins as they do")
  func networks() {
    let cases: [(String, String, Bool)] = [
      ("10.0.0.0/8", "10.255.0.1", true), ("10.0.0.0/8", "11.0.0.1", false),
      ("10.1.2.3", "10.1.2.3", true), ("10.1.2.3", "10.1.2.4", false),
      ("0.0.0.0/0", "1.2.3.4", true), ("0.0.0.0/0", "::1", false), ("::/0", "2001:db8::1", true),
      ("10.1.2.128/25", "10.1.2.129", true), ("10.1.2.128/25", "10.1.2.127", false),
      ("2001:db8::/32", "2001:db8:1::1", true), ("2001:db8::/32", "2001:db9::1", false),
      ("fe80::/10", "fe80::1%eth0", true), ("10.0.0.0/8", "::ffff:10.0.0.1", true),
      ("10.0.0.0/8", "host", false),
    ]
    for (network, host, isIn) in cases {
      #expect(Network(network)?.contains(host) == isIn, "\(network) \(host)")
    }
    for text in [
      "", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/-1", "10.0.0.0/08/1", "::/129",
      "10.0.0/8", "example.org", "10.0.0.0/+8", "10.0.0.0/0008",
    ] {
      #expect(Network(text) == nil, "\(text)")
    }
  }

  @Test("patterns stand for ids")
  func globs() {
    let cases: [(String, String, Bool)] = [
      ("vm1", "vm1", true), ("vm1", "vm10", false), ("vm?", "vm1", true), ("vm?", "vm", false),
      ("*", "anything", true), ("a*b*c", "a-b-b-c", true), ("a*b*c", "a-c-b", false),
      ("*a", "bab", false), ("**", "x", true), ("tenant-a-*", "tenant-a-", true),
      ("tenant-a-*", "tenant-b-1", false),
      (String(repeating: "*a", count: 30), String(repeating: "a", count: 60) + "b", false),
    ]
    for (pattern, id, isIn) in cases {
      #expect(DeviceGlobs([pattern])?.contains(id) == isIn, "\(pattern) \(id)")
    }
    #expect(DeviceGlobs(["a", "b*"])?.contains("bc") == true)
    for patterns in [[], [""], ["A"], ["a/b"], ["[ab]"], [String(repeating: "a", count: 64)]] {
      #expect(DeviceGlobs(patterns) == nil)
    }
    #expect(DeviceGlobs([String](repeating: "a", count: 65)) == nil)
  }
}
