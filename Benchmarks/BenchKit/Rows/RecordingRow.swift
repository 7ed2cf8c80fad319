internal import TestSupport

/// For how long requests wait when something begins or ends to record what they write.
extension Suite {
  private enum Recording: String, CaseIterable, Sendable {
    case tracking
    case checkpoint
    case backup = "push backup"

    func begin(_ service: RunningService, _ device: String) throws {
      let reply =
        switch self {
        case .tracking:
          try service.post("\(device)/tracking", "{\"space\":\"virtual\"}")
        case .checkpoint:
          try service.post("\(device)/checkpoints", "{\"name\":\"bench\"}")
        case .backup:
          try service.post("\(device)/push-backup", "{\"uuid\":\"b\",\"on_deadline\":\"wait\"}")
        }
      guard reply.status == 201 else { throw BenchFailure("\(rawValue): \(reply.text)") }
    }

    func end(_ service: RunningService, _ device: String) throws {
      let path =
        switch self {
        case .tracking: "tracking"
        case .checkpoint: "checkpoints/bench"
        case .backup: "push-backup?uuid=b&outcome=abort"
        }
      let reply = try service.delete("\(device)/\(path)")
      guard reply.status < 300 else { throw BenchFailure("\(rawValue): \(reply.text)") }
    }
  }

  private struct Moment: Sendable {
    let recording: Recording
    let isBeginning: Bool

    var name: String { "\(recording.rawValue) \(isBeginning ? "begins" : "ends")" }
  }

  /// Of a disk of 100 GiB while 4 KiB writes go on.
  func recordingRow() throws {
    let contender = try filled(.ploopd, sizeBytes: max(settings.diskBytes, 100 << 30))
    try measure(
      "recording", "requests wait while recording begins and ends, disk of 100 GiB under writes",
      unit: "ms", [],
      of: Recording.allCases.flatMap {
        [Moment(recording: $0, isBeginning: true), Moment(recording: $0, isBeginning: false)]
      }, name: \.name
    ) { moment, round in
      let wait = try servers.beside(contender, load: { try write(contender, round) }) {
        service, device in
        func pause() throws -> Double {
          let reply = try service.get("\(device)/stats")
          guard let sum = reply.json["pause_ns_sum"] as? Double else {
            throw BenchFailure("statistics: \(reply.text)")
          }
          return sum / 1e6
        }
        let before = try pause()
        try moment.recording.begin(service, device)
        let between = try pause()
        try moment.recording.end(service, device)
        return moment.isBeginning ? between - before : try pause() - between
      }
      return Report.Sample(value: wait)
    }
    try finishChain(contender)
  }
}
