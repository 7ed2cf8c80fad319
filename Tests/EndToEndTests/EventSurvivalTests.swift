import Foundation
import TestSupport
import Testing

@Suite("Events, for clients that come and go")
struct EventSurvivalTests {
  /// Listens like a browser or polls, hangs up at random moments, goes on behind the last id, and
  /// prints the ids that it was given, until the last one comes.
  private static let client = """
    import json, os, random, socket, sys, time
    path, mode, seed, last = sys.argv[1:5]
    chance = random.Random(int(seed))
    cursor, seen = 0, []
    def lines(target, accept):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        s.connect(path)
        s.sendall(f'GET {target} HTTP/1.0\\r\\nHost: localhost\\r\\n{accept}\\r\\n'.encode())
        end = time.time() + chance.uniform(0.01, 0.6)
        for line in s.makefile('r'):
            yield line.rstrip('\\r\\n')
            if mode == 'stream' and time.time() > end: break
    def stream():
        global cursor
        event = {}
        for line in lines('/v1/events?after=0', f'Accept: text/event-stream\\r\\nLast-Event-ID: {cursor}\\r\\n'):
            if line:
                name, _, value = line.partition(': ')
                event[name] = value
                continue
            if 'event' in event:
                assert event['event'] != 'reset', 'reset'
                take(json.loads(event['data']), int(event['id']))
            event = {}
    def poll():
        global cursor
        text = list(lines(f'/v1/events?after={cursor}&wait=1&limit={chance.randint(1, 5)}', ''))
        if not text or '200' not in text[0]: return
        page = json.loads(text[-1])
        for event in page['items']: take(event, event['revision'])
        cursor = page['revision']
    def take(event, revision):
        global cursor
        assert event['revision'] == revision
        about = event.get('object')
        if about: assert about['revision'] >= revision, (revision, about)
        seen.append(revision)
        cursor = revision
        if event['type'] == 'device.created' and event['subject'] == last:
            print(' '.join(map(str, seen)))
            sys.exit(0)
    deadline = time.time() + 100
    while time.time() < deadline:
        try: stream() if mode == 'stream' else poll()
        # Until somebody takes the connection again.
        except (OSError, ValueError): os.sched_yield()
    sys.exit('the last event did not come: ' + ' '.join(map(str, seen)))
    """

  @Test("Whoever comes back gets every event once and in order, over kill -9 too")
  func reconnects() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    let seed = UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    var random = SeededGenerator(seed: seed)
    try Data(Self.client.utf8).write(to: URL(fileURLWithPath: "\(folder.path)/client.py"))
    let clients = try (0..<4).map { number in
      try ChildProcess(
        [
          "/usr/bin/python3", "\(folder.path)/client.py", service.httpSocket,
          number % 2 == 0 ? "stream" : "list", "\(seed % 1_000_000 + UInt64(number))", "last",
        ], output: "\(folder.path)/seen.\(number)", errors: "\(folder.path)/failed.\(number)")
    }
    for round in 1...5 {
      try work(service, round, &random)
      try dieAmid(service, round, milliseconds: Int.random(in: 1...60, using: &random))
      try service.start()
    }
    #expect(try service.create("last", sizeBytes: 1 << 20).status == 201)
    let ring = try Tool.shell(
      "sqlite3 -readonly '\(folder.path)/state/ploopd.db' 'SELECT revision FROM events ORDER BY revision'"
    ).output.split(separator: "\n")
    // The export of the last device comes behind it.
    let wanted = ring.dropLast().joined(separator: " ")
    for (number, client) in clients.enumerated() {
      let status = try client.wait(seconds: 60)
      let failure = try Tool.shell("cat '\(folder.path)/failed.\(number)'").output
      #expect(status == 0, "\(failure)")
      let seen = try Tool.shell("cat '\(folder.path)/seen.\(number)'").output
      #expect(seen == wanted + "\n", "client \(number)")
    }
    #expect(try service.end() == 0)
  }

  /// Makes, changes and ends some devices and exports.
  private func work(
    _ service: RunningService, _ round: Int, _ random: inout SeededGenerator
  ) throws {
    for number in 0..<3 {
      let id = "d\(round).\(number)"
      #expect(try service.create(id, sizeBytes: 1 << 20).status == 201)
      let export = "{\"name\":\"\(id).ro\",\"device\":\"\(id)\",\"readonly\":true}"
      #expect(try service.post("/v1/exports", export).status == 201)
      if Bool.random(using: &random) {
        #expect(try service.delete("/v1/exports/\(id).ro").status == 204)
      }
      let change = "{\"labels\":{\"round\":\"\(round)\"}}"
      #expect(try service.patch("/v1/devices/\(id)", change).status == 200)
      if Bool.random(using: &random) {
        #expect(try service.delete("/v1/devices/\(id)").status == 204)
      }
    }
  }

  /// Ends the service as a crash does while several requests are on their way.
  private func dieAmid(_ service: RunningService, _ round: Int, milliseconds: Int) throws {
    let requests = (0..<4).map { number in
      "curl -s --unix-socket '\(service.httpSocket)' -H 'Content-Type: application/json' -o /dev/null "
        + "-d '{\"id\":\"k\(round).\(number)\",\"create\":{\"directory\":\"k\(round).\(number)\",\"size\":1048576},"
        + "\"export\":{\"name\":\"k\(round).\(number)\"}}' http://localhost/v1/devices &"
    }
    try Tool.shell(
      "\(requests.joined(separator: "\n"))\nsleep 0.0\(milliseconds < 10 ? "0" : "")\(milliseconds)"
    )
    service.kill()
  }

  // MARK: Real clients

  private func curl(
    _ service: RunningService, _ output: String, _ query: String = "", _ more: String = ""
  ) throws -> ChildProcess {
    try ChildProcess(
      [
        "/bin/bash", "-c",
        "exec curl -sS -N \(more) --unix-socket '\(service.httpSocket)' -H 'Accept: text/event-stream' 'http://localhost/v1/events\(query)'",
      ], output: output, errors: output)
  }

  @Test("curl follows what happens, and SIGTERM ends the service while it and others listen")
  func curl() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    let heard = "\(folder.path)/heard"
    let client = try curl(service, heard)
    let others = try (0..<8).map { try curl(service, "\(folder.path)/other.\($0)", "?after=0") }
    try wait(for: "retry: 2000\nid: 0\n\n", in: heard)
    #expect(try service.create("vm1", sizeBytes: 1 << 20).status == 201)
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    try wait(for: "id: 3\nevent: device.deleted\n", in: heard)
    let text = try Tool.shell("cat '\(heard)'").output
    #expect(text.contains("id: 1\nevent: device.created\ndata: {\"revision\":1,"))
    #expect(text.contains("id: 2\nevent: export.created\ndata: {\"revision\":2,"))
    // A client that is stopped does not read; the service does not wait for it long.
    others[0].signal(SIGSTOP)
    let began = Date()
    #expect(try service.end() == 0)
    #expect(Date().timeIntervalSince(began) < 10)
    #expect(try client.wait(seconds: 20) == 0)
    for other in others.dropFirst() { #expect(try other.wait(seconds: 20) == 0) }
  }

  private func wait(for text: String, in file: String) throws {
    let deadline = Date().addingTimeInterval(30)
    while !(try Tool.shell("cat '\(file)'").output.contains(text)) {
      guard Date() < deadline else {
        throw Tool.Failure(
          description: "\(text) did not come: \(try Tool.shell("cat '\(file)'").output)")
      }
    }
  }

  @Test("Readers that do not read cost no memory, keep nobody waiting, and lose nothing")
  func slowReaders() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path, logLevel: "info")
    #expect(try service.create("vm1", sizeBytes: 1 << 20).status == 201)
    #expect(try service.end() == 0)
    let count = 9_000
    try Tool.shell(
      """
      sqlite3 '\(folder.path)/state/ploopd.db' "
        WITH RECURSIVE n(r) AS (SELECT 100 UNION ALL SELECT r + 1 FROM n WHERE r < \(99 + count))
        INSERT INTO events SELECT r, unixepoch(), 'device.changed', 'vm1', 'vm1', NULL FROM n;
        UPDATE service SET revision = \(99 + count);"
      """)
    try service.start()
    let output = try Tool.python(
      """
      import re, socket, sys, time
      path, process, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
      def listen(after=first - 1):
          s = socket.socket(socket.AF_UNIX)
          s.settimeout(120)
          s.connect(path)
          s.sendall(f'GET /v1/events?after={after}&types=device.changed HTTP/1.0\\r\\nHost: localhost\\r\\nAccept: text/event-stream\\r\\n\\r\\n'.encode())
          return s
      def memory():
          return int(re.search(r'VmRSS:\\s+(\\d+)', open(f'/proc/{process}/status').read())[1])
      def read(s):
          ids, rest, total = [], b'', 0
          while len(ids) < count:
              bytes = s.recv(1 << 16)
              total += len(bytes)
              if not bytes:
                  # Who has not read for a minute is let go, and goes on where it was.
                  s, rest = listen(ids[-1] if ids else first - 1), b''
              parts = (rest + bytes).split(b'\\n\\n')
              rest = parts.pop()
              ids += [int(p[4:p.index(b'\\n')]) for p in parts if b'\\ndata' in p]
          assert ids == list(range(first, first + count)), ids[:10]
          return total
      total = read(listen())
      before = memory()
      slow = [listen() for _ in range(32)]
      s = listen()
      read(s)
      grown = memory() - before
      assert grown < 16 << 10, f'{grown} KiB for 32 readers'
      for s in slow[:4]: read(s)
      print(total, grown)
      """, [service.httpSocket, "\(service.process)", "100", "\(count)"], seconds: 600)
    let words = output.output.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
    // Had it all been kept for each of them, it would be many times the bound.
    #expect(words.count == 2 && words[0] > 4 << 20, "\(output.output)")
    print("one stream \(words.first ?? 0) bytes, 32 readers \(words.last ?? 0) KiB")
    #expect(try service.end() == 0)
  }
}
