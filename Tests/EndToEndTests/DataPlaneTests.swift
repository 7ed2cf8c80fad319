import Foundation
import TestSupport
import Testing

@Suite("Exports over HTTP")
struct DataPlaneTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
  }

  private func write(_ commands: String...) throws {
    let words = commands.map { "-c '\($0)'" }.joined(separator: " ")
    try Tool.shell("qemu-io -f raw \(words) '\(service.uri("vm"))'")
  }

  private func curl(_ options: String, _ path: String) throws -> String {
    try Tool.shell(
      "curl -sS -f --max-time 90 --unix-socket '\(service.httpSocket)' \(options) 'http://localhost\(path)'"
    ).output
  }

  /// All runs of a context, read so many at a time: where each begins, and what is said of it.
  private func extents(
    _ export: String, _ context: String, limit: Int, _ member: String
  ) throws -> [(start: Int, length: Int, value: Int)] {
    var all: [(start: Int, length: Int, value: Int)] = []
    var next: Int? = 0
    while let offset = next {
      let reply = try service.get(
        "/v1/exports/\(export)/extents?context=\(context)&offset=\(offset)&limit=\(limit)")
      #expect(reply.status == 200, "\(reply.text)")
      for extent in reply.json["extents"] as? [[String: Any]] ?? [] {
        let start = try #require(extent["start"] as? Int)
        let length = try #require(extent["length"] as? Int)
        let value = try #require(extent[member] as? Int)
        if let last = all.last, last.value == value {
          all[all.count - 1].length += length
        } else {
          all.append((start, length, value))
        }
      }
      next = reply.json["next_offset"] as? Int
    }
    return all
  }

  /// The same by NBD, as nbdinfo shows it.
  private func map(_ export: String, _ context: String) throws -> [(
    start: Int, length: Int, value: Int
  )] {
    let text = try Tool.shell("nbdinfo --map='\(context)' '\(service.uri(export))'").output
    return try text.split(separator: "\n").map { line in
      let words = line.split(separator: " ")
      return (
        try #require(Int(words[0])), try #require(Int(words[1])), try #require(Int(words[2]))
      )
    }
  }

  @Test("curl reads what NBD reads: all of it, and any part; of a snapshot what it was")
  func bytes() throws {
    try write("write -P 1 0 1M", "write -P 2 3333k 777k", "write -P 3 16383k 1k")
    let taken = try service.post("/v1/devices/vm/snapshots", "{}")
    let guid = try #require(taken.json["uuid"] as? String)
    #expect(
      try service.post(
        "/v1/exports", "{\"name\":\"old\",\"device\":\"vm\",\"snapshot\":\"\(guid)\"}"
      ).status == 201)
    try write("write -P 4 512k 8M")
    for export in ["vm", "old"] {
      let raw = "\(folder.path)/\(export)"
      try Tool.shell("qemu-img convert -f raw -O raw '\(service.uri(export))' '\(raw)'")
      _ = try curl("-o '\(folder.path)/whole'", "/v1/exports/\(export)/data")
      try expectSameBytes("\(folder.path)/whole", raw, export)
      for range in ["0-0", "65535-65536", "1000-3000000", "524287-9000000", "16777215-", "-4097"] {
        _ = try curl("-r \(range) -o '\(folder.path)/part'", "/v1/exports/\(export)/data")
        let first =
          range.hasPrefix("-") ? (16 << 20) - 4097 : try #require(Int(range.prefix { $0 != "-" }))
        try Tool.shell(
          "cmp '\(folder.path)/part' <(tail -c +\(first + 1) '\(raw)' | head -c $(stat -c %s '\(folder.path)/part'))"
        )
      }
    }
  }

  @Test("extents are those that NBD tells, page by page and at once", arguments: [1, 3, 1000])
  func extents(limit: Int) throws {
    try write("write 0 1M", "write 4M 64k", "write 8M 128k")
    #expect(try service.post("/v1/devices/vm/checkpoints", "{\"name\":\"cp\"}").status == 201)
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
    try write("write 512k 1M", "write 12M 4k")
    func same(_ context: String, _ member: String, _ name: String, _ flag: (Int) -> Int) throws {
      let http = try extents("vm", context, limit: limit, member)
      let nbd = try map("vm", name).map { ($0.start, $0.length, flag($0.value)) }
      #expect(http.count == nbd.count, "\(context)")
      for (one, other) in zip(http, nbd) { #expect(one == other, "\(context)") }
    }
    try same("base", "data", "base:allocation") { $0 & 1 == 0 ? 1 : 0 }
    try same("base", "zero", "base:allocation") { $0 >> 1 }
    try same("depth", "depth", "qemu:allocation-depth") { $0 }
    try same("dirty:cp", "dirty", "qemu:dirty-bitmap:cp") { $0 }
    let page = try service.get("/v1/exports/vm/extents?offset=4194304&length=65536")
    #expect(page.json["contexts"] as? [String] == ["base", "depth", "dirty:cp"])
    #expect((page.json["extents"] as? [Any])?.count == 1)
    #expect(page.json["next_offset"] is NSNull)
    #expect(
      try service.get("/v1/exports/vm/extents?context=dirty:no").code == "checkpoint-not-found")
    #expect(try service.get("/v1/exports/vm/extents?context=bass").code == "invalid-value")
    #expect(try service.get("/v1/exports/vm/extents?offset=16777217").code == "value-impossible")
    #expect(try service.get("/v1/exports/no/extents").code == "export-not-found")
  }

  @Test(
    "a suspended disk is waited for, by who goes on waiting, and a large one takes little memory")
  func waiting() throws {
    try write("write -P 7 0 1M")
    #expect(try service.create("large", sizeBytes: 8 << 30).status == 201)
    #expect(try service.patch("/v1/devices/vm", "{\"suspended\":true}").status == 200)
    // One who hangs up, and whose connection is free again then.
    try Tool.shell(
      """
      status=0
      curl -sS --max-time 0.2 --unix-socket '\(service.httpSocket)' -o /dev/null 'http://localhost/v1/exports/vm/data' || status=$?
      [ $status = 28 ]
      """)
    try Tool.awaitText("path=/v1/exports/vm/data", in: service.logFile)
    let client = try ChildProcess(
      [
        "/usr/bin/curl", "-sS", "-f", "--unix-socket", service.httpSocket, "-r", "0-9",
        "http://localhost/v1/exports/vm/data",
      ], output: "\(folder.path)/ten", errors: "\(folder.path)/errors")
    let before = try resident()
    let text = try curl(
      "-r 0-536870911 -o /dev/null -w '%{size_download}'", "/v1/exports/large/data")
    #expect(text == "536870912")
    #expect(try resident() - before < 32 << 20)
    #expect(try service.patch("/v1/devices/vm", "{\"suspended\":false}").status == 200)
    #expect(try client.wait(seconds: 120) == 0)
    #expect(
      try String(contentsOfFile: "\(folder.path)/ten", encoding: .utf8)
        == String(repeating: "\u{7}", count: 10))
  }

  @Test(
    "an export that is closed ends what is being read of it, also where another one takes its name")
  func closed() throws {
    #expect(try service.create("large", sizeBytes: 64 << 30).status == 201)
    #expect(try service.create("other", sizeBytes: 64 << 30).status == 201)
    #expect(try service.delete("/v1/exports/other").status == 204)
    // More than sockets hold, at a speed that it does not come to its end by.
    let reader = try ChildProcess(
      [
        "/usr/bin/curl", "-sSN", "--limit-rate", "1M",
        "--unix-socket", service.httpSocket, "http://localhost/v1/exports/large/data",
      ], output: "\(folder.path)/part", errors: "\(folder.path)/errors")
    try Tool.shell("until [ -s '\(folder.path)/part' ]; do sleep 0.02; done", seconds: 120)
    #expect(try service.delete("/v1/exports/large").status == 204)
    let again = try service.post("/v1/exports", #"{"name":"large","device":"other"}"#)
    #expect(again.status == 201, "\(again.text)")
    // CURLE_PARTIAL_FILE
    #expect(try reader.wait(seconds: 120) == 18)
  }

  private func resident() throws -> Int {
    let line = try #require(
      try service.get("/metrics").text.split(separator: "\n").first {
        $0.hasPrefix("process_resident_memory_bytes ")
      })
    return try #require(Int(line.drop { $0 != " " }.dropFirst()))
  }
}
