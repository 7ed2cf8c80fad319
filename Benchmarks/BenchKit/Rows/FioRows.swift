internal import Foundation
internal import TestSupport

/// The same work as seen by fio, which everybody knows and which is slower than the servers.
extension Suite {
  func fioRows(_ contenders: [Contender]) throws {
    for (id, title, kind) in [
      ("fio-read", "fio: 4 KiB random read, depth 16", "randread"),
      ("fio-write", "fio: 4 KiB overwrite, depth 16", "randwrite"),
    ] where wants(id) {
      try measure(id, title, unit: "op/s", goals([]), of: contenders, name: \.name) {
        contender, round in try fio(contender, kind, seed: round + 1)
      }
    }
    // fio writes content of its own, behind the working set.
    guard wants("fio-write") else { return }
    for contender in contenders {
      try fill(contender, offset: settings.spanBytes, bytes: settings.spanBytes)
    }
  }

  private func fio(_ contender: Contender, _ kind: String, seed: Int) throws -> Report.Sample {
    let offset = kind == "randread" ? 0 : settings.spanBytes
    let before = contender.process.flatMap { ProcessorTime.nanoseconds(of: $0) }
    let output = try Tool.shell(
      """
      fio --name=x --thread --ioengine=nbd --uri='\(contender.address.uri)' --rw=\(kind) --bs=4k \
      --iodepth=16 --offset=\(offset) --size=\(settings.spanBytes) --randseed=\(seed) --norandommap \
      --time_based --runtime=\(max(1, Int(settings.seconds.rounded()))) --output-format=json 2>/dev/null
      """, seconds: 120
    ).output
    let after = contender.process.flatMap { ProcessorTime.nanoseconds(of: $0) }
    // It may say something in front of the JSON.
    guard let brace = output.firstIndex(of: "{"),
      let result = try? JSONDecoder().decode(FioOutput.self, from: Data(output[brace...].utf8)),
      let job = result.jobs.first
    else { throw BenchFailure("fio said: \(output.prefix(400))") }
    let side = kind == "randread" ? job.read : job.write
    let each = max(1, Double(side.total_ios))
    return Report.Sample(
      value: side.iops, p50: side.clat_ns.percentile?["50.000000"].map { $0 / 1e3 },
      p99: side.clat_ns.percentile?["99.000000"].map { $0 / 1e3 },
      serverMicroseconds: after.flatMap { after in
        before.map { Double(after - $0) / 1e3 / each }
      })
  }
}

/// What is needed of fio's JSON, by its own names.
private struct FioOutput: Decodable {
  struct Job: Decodable {
    let read: Side
    let write: Side
  }
  struct Side: Decodable {
    let iops: Double
    let total_ios: Int
    let clat_ns: Latency
  }
  struct Latency: Decodable { let percentile: [String: Double]? }
  let jobs: [Job]
}
