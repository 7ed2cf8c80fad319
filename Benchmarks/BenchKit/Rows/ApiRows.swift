internal import PloopIO
internal import TestSupport

/// How fast the API answers, and whether it goes on doing so.
///
/// They are left out of comparisons with another commit, which may not know them.
extension Suite {
  static let apiRowIDs = ["api-get", "api-list", "api-slow-peers", "api-beside-io"]

  private enum Answerer: String, CaseIterable {
    case ploopd
    case bare = "libmicrohttpd"
  }

  func apiRows() throws {
    guard settings.base == nil, Self.apiRowIDs.contains(where: wants) else { return }
    let service = try RunningService(
      in: "\(servers.folder)/api", ["--http-auth", "none"], httpListen: "127.0.0.1:0",
      program: settings.program, logLevel: "info")
    try makeDisks(service)
    if wants("api-get") {
      try rateRow("api-get", "GET of one device, 16 connections of wrk", "/v1/devices/d1", service)
    }
    if wants("api-list") {
      try rateRow(
        "api-list", "GET of a list of \(settings.devices) devices, 16 connections of wrk",
        "/v1/devices?limit=1000", service)
    }
    if wants("api-slow-peers") { try slowPeersRow(service) }
    _ = try service.end()
    if wants("api-beside-io") { try besideIORow() }
  }

  func makeDisks(_ service: RunningService) throws {
    let made = try Tool.shell(
      """
      seq 1 \(settings.devices) | xargs -P 4 -I N curl -sS -f -o /dev/null --unix-socket '\(service.httpSocket)' \
        -H 'Content-Type: application/json' http://localhost/v1/devices \
        -d '{"id":"dN","create":{"directory":"dN","size":67108864,"cluster_size":1048576},"export":{"name":"dN"}}'
      """, check: false, seconds: 600)
    guard made.status == 0 else {
      throw BenchFailure("disks were not made: \(made.output); \(service.condition)")
    }
  }

  // MARK: Requests per second

  private func rateRow(
    _ id: String, _ title: String, _ path: String, _ service: RunningService
  ) throws {
    let body = try HTTPClient(service.httpSocket).get(path)
    let reference = try HTTPReference(answering: body, in: servers.folder)
    defer { reference.stop() }
    let own = try service.httpAddress()
    try measure(
      id, title, unit: "requests/s", [Report.Goal(against: Answerer.bare.rawValue, ratio: 0.5)],
      of: Answerer.allCases, name: \.rawValue
    ) { answerer, _ in
      try rate("http://\(answerer == .ploopd ? own : reference.address)\(path)")
    }
  }

  private func rate(_ address: String) throws -> Report.Sample {
    let seconds = max(1, Int(settings.seconds.rounded()))
    let output = try Tool.shell("wrk -t1 -c16 -d\(seconds)s --latency '\(address)'", seconds: 120)
      .output
    func words(_ beginning: String) -> [Substring]? {
      output.split(separator: "\n").map { $0.split(separator: " ") }
        .first { $0.first.map(String.init) == beginning }
    }
    guard let rate = words("Requests/sec:")?.last.flatMap({ Double($0) }), rate > 0,
      !output.contains("Non-2xx"), !output.contains("Socket errors")
    else { throw BenchFailure("wrk said: \(output.suffix(600))") }
    return Report.Sample(value: rate)
  }

  // MARK: Latencies

  private func slowPeersRow(_ service: RunningService) throws {
    try latencyRow(
      "api-slow-peers",
      "p99 of a GET of one device beside 200 dripping clients and 50 stalled streams",
      "beside slow peers", ratio: 2
    ) { besides in
      let peers =
        besides ? try SlowPeers(service.httpSocket, dripping: 200, stalled: 50) : nil
      defer { peers?.stop() }
      return try HTTPClient.latencies(
        of: "/v1/devices/d1", at: service.httpSocket, seconds: settings.seconds)
    }
  }

  private func besideIORow() throws {
    let contender = try filled(.ploopd)
    let service = try servers.service(.ploopd)
    try latencyRow(
      "api-beside-io", "p99 of a small GET while fio reads 4 KiB, depth 16", "beside fio", ratio: 3
    ) { besides in
      let seconds = max(1, Int(settings.seconds.rounded()))
      let load =
        besides
        ? try ChildProcess(
          [
            "/usr/bin/fio", "--name=x", "--thread", "--ioengine=nbd",
            "--uri=\(contender.address.uri)", "--rw=randread", "--bs=4k", "--iodepth=16",
            "--size=\(settings.spanBytes)", "--norandommap", "--time_based",
            "--runtime=\(seconds + 60)",
          ], output: "/dev/null", errors: "/dev/null") : nil
      defer { load?.end() }
      if load != nil { try awaitReads(contender, service) }
      return try HTTPClient.latencies(
        of: "/v1/exports/\(contender.address.export)", at: service.httpSocket,
        seconds: settings.seconds)
    }
    try finishChain(contender)
  }

  private func awaitReads(_ contender: Contender, _ service: RunningService) throws {
    let path = "/v1/devices/\(contender.address.export)/stats"
    func reads() throws -> Double {
      (try service.get(path).json["read"] as? [String: Any])?["ops"] as? Double ?? 0
    }
    let before = try reads()
    let deadline = Deadline.after(seconds: 120)
    while try reads() < before + 1_000 {
      guard !deadline.hasPassed else { throw BenchFailure("fio does not read") }
    }
  }

  /// - Parameter sample: gets whether somebody else is there.
  private func latencyRow(
    _ id: String, _ title: String, _ name: String, ratio: Double,
    _ sample: (Bool) throws -> Histogram
  ) throws {
    try measure(
      id, title, unit: "µs",
      [Report.Goal(of: name, against: "alone", ratio: ratio, atMost: true)],
      of: [false, true], name: { $0 ? name : "alone" }
    ) { besides, _ in
      let latencies = try sample(besides)
      let p99 = Double(latencies.quantile(0.99)) / 1e3
      return Report.Sample(value: p99, p50: Double(latencies.quantile(0.5)) / 1e3, p99: p99)
    }
  }
}
