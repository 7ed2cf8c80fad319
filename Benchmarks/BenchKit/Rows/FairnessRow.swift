internal import TestSupport

/// What a client gets beside one that asks for much more at a time, where both wait for the same threads.
extension Suite {
  private enum Client: String, CaseIterable {
    case greedy = "128 in flight"
    case modest = "64 in flight"

    var depth: Int { self == .greedy ? 128 : 64 }
  }

  func fairnessRow(_ contenders: [Contender]) throws {
    guard let contender = contenders.first(where: { $0.peer == .ploopd }) else { return }
    // Behind what other rows read.
    try fill(contender, offset: settings.spanBytes, bytes: settings.spanBytes)
    // Both are measured at once, for the one whose turn comes first.
    var others: [Client: Report.Sample] = [:]
    try measure(
      "fairness", "WRITE_ZEROES of 4 KiB, two connections to one disk", unit: "op/s",
      [
        Report.Goal(of: Client.modest.rawValue, against: Client.greedy.rawValue, ratio: 0.8),
        Report.Goal(
          of: Client.modest.rawValue, against: Client.greedy.rawValue, ratio: 1.25, atMost: true),
      ], of: Client.allCases, name: \.rawValue
    ) { client, round in
      if let sample = others.removeValue(forKey: client) { return sample }
      let loads = Client.allCases.map { client in
        job {
          ($0.kind, $0.depth, $0.offset) = (.zeroes, client.depth, UInt64(settings.spanBytes))
          $0.seed = UInt64(round * Client.allCases.count + client.depth)
        }
      }
      let results = try Load.run(loads.map { (contender.address, $0) }, server: contender.process)
      for (other, result) in zip(Client.allCases, results) where other != client {
        others[other] = Report.Sample(result)
      }
      let index = Client.allCases.firstIndex(of: client) ?? 0
      return Report.Sample(results[index])
    }
  }
}
