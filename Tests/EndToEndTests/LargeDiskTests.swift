import TestSupport
import Testing

@Suite("Large disks, and many")
struct LargeDiskTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path, logLevel: "info")
  }

  /// KiB of memory that are the process's own, or of files that it has mapped.
  private func memory() throws -> Int {
    let status = try Tool.shell("cat /proc/\(service.process)/status").output
    return status.split(separator: "\n").reduce(0) { sum, line in
      guard line.hasPrefix("RssAnon:") || line.hasPrefix("RssFile:") else { return sum }
      return sum
        + (line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0)
    }
  }

  private func threads() throws -> Int {
    try Tool.shell("ls /proc/\(service.process)/task").output.split(separator: "\n").count
  }

  @Test("a fresh disk costs what is written of its index, not what it could be")
  func fresh() throws {
    // What the service takes once, whatever the disk.
    #expect(try service.create("small", sizeBytes: 16 << 20).status == 201)
    try Tool.shell("qemu-io -f raw -c 'write -P 1 0 4k' -c flush '\(service.uri("small"))'")
    let before = try memory()
    for (id, size, cluster) in [("wide", 100 << 40, 1 << 20), ("fine", 16 << 40, 1 << 16)] {
      let made = try service.create(id, sizeBytes: size, clusterBytes: cluster)
      #expect(made.status == 201, "\(made.text)")
      let end = size - 4096
      try Tool.shell(
        "qemu-io -f raw -c 'write -P 7 \(end) 4k' -c flush -c 'read -P 7 \(end) 4k' -c 'read -P 0 0 1M' '\(service.uri(id))'"
      )
    }
    let both = try memory() - before
    #expect(both < 16 << 10, "\(both) KiB for two disks")
    #expect(try service.end() == 0)
    for id in ["wide", "fine"] {
      let image = "\(service.images)/\(id)/root.hds"
      try OpenVZ.expectSound(image)
      let check = try Tool.shell("'\(RunningService.program)' image check --json '\(image)'").output
      #expect(check.contains(#""errors":[]"#) && check.hasSuffix(#""verdict":"clean"}"# + "\n"))
    }
    // All of it comes back, with what was written.
    try service.start()
    for id in ["wide", "fine"] {
      let end = (id == "wide" ? 100 << 40 : 16 << 40) - 4096
      try Tool.shell("qemu-io -f raw -c 'read -P 7 \(end) 4k' '\(service.uri(id))'")
    }
    #expect(try service.end() == 0)
  }

  @Test("a written index takes no more memory than its budget, and what the file needs")
  func written() throws {
    let service = try RunningService(
      in: "\(folder.path)/small", ["--index-cache-size", "4MiB"], logLevel: "info")
    // 1 TiB in clusters of 64 KiB, every one of them mapped: 64 MiB of index, and no data.
    try Tool.shell(
      """
      cd '\(service.images)' && '\(RunningService.program)' image create --size 1T --cluster-size 64K a.hds
      python3 - <<'END'
      import array
      clusters, header = 1 << 24, 1025
      with open("a.hds", "r+b") as file:
          file.truncate((header + clusters) << 16)
          file.seek(52)
          file.write(bytes(4))
          file.seek(64)
          for start in range(0, clusters, 1 << 20):
              array.array("I", range(header + start, header + start + (1 << 20))).tofile(file)
      END
      """, seconds: 300)
    func memory() throws -> Int {
      let words = try Tool.shell(
        "awk '/^RssAnon|^RssFile/ { sum += $2 } END { print sum }' /proc/\(service.process)/status"
      ).output
      return try #require(words.split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) })
    }
    let before = try memory()
    #expect(try service.attach("a", ["a.hds"]).status == 201)
    // All over the disk: each of these lies in an index page of its own.
    let offsets = (0..<1_500).map { $0 << 29 | 1 << 20 }
    for part in stride(from: 0, to: offsets.count, by: 500) {
      let commands = offsets[part..<part + 500].map { "-c 'read -P 0 \($0) 4k'" }
      try Tool.shell("qemu-io -r -f raw \(commands.joined(separator: " ")) '\(service.uri("a"))'")
    }
    let grown = try memory() - before
    // Two bits for each cluster of the file.
    #expect(grown < 4 << 10 + 4 << 10 + 8 << 10, "\(grown) KiB")
    let metrics = try service.get("/metrics").text.split(separator: "\n")
    func metric(_ name: String) -> Double? {
      metrics.first { $0.hasPrefix("ploopd_index_cache_\(name) ") }
        .flatMap { $0.split(separator: " ").last }.flatMap { Double($0) }
    }
    #expect(metric("budget_bytes") == Double(4 << 20))
    #expect((metric("resident_bytes") ?? .infinity) <= Double(4 << 20))
    #expect((metric("misses_total") ?? 0) >= 1_500)
    #expect((metric("loads_total") ?? 0) >= 512)
    #expect(try service.end() == 0)
  }

  @Test("hundreds of idle disks have no thread, little memory, and all come back")
  func idle() throws {
    try Tool.shell(
      """
      cd '\(service.images)' && mkdir one && '\(RunningService.program)' image create --size 1G one/a.hds
      for n in $(seq 300); do cp -r --sparse=always one d$n; done
      """, seconds: 300)
    func attach(_ range: ClosedRange<Int>) throws {
      // Eight at a time: what one costs is waiting for the disk.
      let statuses = try Tool.shell(
        """
        seq \(range.lowerBound) \(range.upperBound) | xargs -P 8 -I N curl -sS --max-time 90 --unix-socket '\(service.httpSocket)' \
          -o /dev/null -w '%{http_code}\\n' -H 'Content-Type: application/json' \
          --data-binary '{"id":"dN","deltas":[{"path":"dN/a.hds"}],"export":{"name":"dN"}}' http://localhost/v1/devices | sort | uniq -c
        """, seconds: 600
      ).output.split(whereSeparator: \.isWhitespace)
      #expect(statuses == ["\(range.count)", "201"], "\(statuses)")
    }
    try attach(1...100)
    let memoryBefore = try memory()
    try attach(101...300)
    let grown = try memory() - memoryBefore
    #expect(grown < 200 * 200, "\(grown) KiB for 200 disks")
    // The service's own are as many as are busy at once, and those of requests.
    #expect(try threads() < 150)
    service.kill()
    try service.start()
    let page = try service.get("/v1/devices?limit=1000")
    let states = (page.json["items"] as? [[String: Any]])?.map { $0["state"] as? String }
    #expect(states == Array(repeating: "online", count: 300))
    try Tool.shell("qemu-io -f raw -c 'write -P 7 0 4k' -c flush '\(service.uri("d300"))'")
    #expect(try service.end(seconds: 300) == 0)
  }
}
