internal import PloopJSON

/// How far a job is, of its `progress`.
struct Progress: Equatable {
  let done: Int64
  let total: Int64
  /// Of bytes a second; nil where nothing moves.
  let rate: Int64?
  let secondsLeft: Int64?
  /// Otherwise clusters are counted.
  let isBytes: Bool

  /// - Returns: nil while nobody knows how much there is.
  init?(_ value: JSON) {
    func number(_ name: String) -> Int64? { value.member(name)?.whole }
    rate = number("rate_bps")
    secondsLeft = number("eta_seconds")
    if let total = number("total_bytes"), total > 0 {
      (done, self.total, isBytes) = (number("done_bytes") ?? 0, total, true)
    } else if let total = number("total_clusters"), total > 0 {
      (done, self.total, isBytes) = (number("done_clusters") ?? 0, total, false)
    } else {
      return nil
    }
  }

  var percent: Int { Units.percent(done, of: total) }

  /// `1.2 GiB of 3 GiB, 120 MiB/s, 15 s left`
  var text: String {
    var words =
      isBytes
      ? "\(Units.bytes(done)) of \(Units.bytes(total))" : "\(done) of \(total) clusters"
    if let rate, rate > 0 { words += ", \(Units.rate(rate))" }
    if let secondsLeft { words += ", \(Units.duration(secondsLeft)) left" }
    return words
  }
}

/// What is seen of a job while somebody waits for it: on a terminal one line that is written over, otherwise a line
/// whenever there is something new.
struct JobDisplay {
  private static let barWidth = 30
  /// Percent between two lines for whoever reads them later.
  private static let step = 10

  private let isTerminal: Bool
  private let width: Int
  private let write: (String) -> Void
  private var isLineOpen = false
  /// What was told last, without figures.
  private var told = ""
  private var toldPercent = -JobDisplay.step

  /// - Parameter width: characters of a line.
  init(isTerminal: Bool, width: Int, _ write: @escaping (String) -> Void) {
    self.isTerminal = isTerminal
    self.width = width
    self.write = write
  }

  mutating func show(_ job: JSON) {
    let progress = job.at("progress").flatMap { Progress($0) }
    let state = JobDisplay.state(of: job)
    guard !isTerminal else {
      let line = JobDisplay.bar(progress).map { "\(state) \($0)" } ?? state
      // The end of the line is cleared: the one before may have been longer.
      write("\r\(line.prefix(max(1, width - 1)))\u{1B}[K")
      isLineOpen = true
      return
    }
    let percent = progress?.percent ?? 0
    guard state != told || percent >= toldPercent + JobDisplay.step else { return }
    if state != told || progress != nil {
      write((progress.map { "\(state) \($0.percent) %, \($0.text)" } ?? state) + "\n")
    }
    told = state
    toldPercent = percent - percent % JobDisplay.step
  }

  /// Leaves the last line standing.
  mutating func end() {
    guard isLineOpen else { return }
    isLineOpen = false
    write("\n")
  }

  private static func bar(_ progress: Progress?) -> String? {
    guard let progress else { return nil }
    let filled = progress.percent * barWidth / 100
    let bar =
      String(repeating: "#", count: filled) + String(repeating: ".", count: barWidth - filled)
    return "[\(bar)] \(progress.percent) % \(progress.text)"
  }

  /// `merge vm1: running, copying`, and what it waits for.
  private static func state(of job: JSON) -> String {
    let names = ["type", "device"].compactMap { job.at($0).map(Plain.text) }
    let states = ["state", "phase"].compactMap { job.at($0).map(Plain.text) }
    var text = "\(names.joined(separator: " ")): \(states.joined(separator: ", "))"
    if job.member("stalled")?.flag == true { text += ", stalled" }
    if let blocker = job.member("waiting_for")?.items.first?.at("detail") {
      text += " (\(Plain.text(blocker)))"
    }
    return text
  }
}
