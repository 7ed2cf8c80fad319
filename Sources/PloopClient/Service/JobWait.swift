internal import Glibc
internal import PloopIO
internal import PloopJSON
internal import PloopTerminal

/// Waits for the end of a job, and shows how far it is meanwhile.
struct JobWait {
  /// How long a service is waited for that does not answer: its jobs go on when it is back.
  private static let patienceSeconds = 120
  private static let ends: Set = ["succeeded", "failed", "cancelled"]

  let client: APIClient
  let id: String
  /// Whether to show nothing.
  let isQuiet: Bool

  /// - Returns: the job as it has ended, well.
  /// - Throws: `jobFailed` and `jobCancelled` where it has not.
  func end() throws(ClientFault) -> APIClient.Answer {
    let id = id
    Interruption.say(
      "the job goes on; 'ploopctl jobs wait \(id)' waits for it, 'ploopctl jobs cancel \(id)' ends it"
    )
    defer { Interruption.say(nil) }
    var display = JobDisplay(
      isTerminal: Terminal.showsErrors, width: Terminal.errorColumns ?? 80, writeToStandardError)
    defer { display.end() }
    var seen = try look(Request(.getJob, [id]))
    while let job = seen, !JobWait.isOver(job.json) {
      guard job.json.at("state") != nil else { throw ClientFault(.other, "the answer is no job") }
      if !isQuiet { display.show(job.json) }
      // What changes a job's state is answered at once; its progress changes no revision.
      let revision = job.json.at("revision")?.whole ?? 0
      _ = try look(
        Request(.getJob, [id], query: ["after_revision": String(revision), "wait": "1"]))
      seen = try look(Request(.getJob, [id]))
    }
    guard let job = seen else { throw ClientFault(.other, "the service says nothing of job \(id)") }
    if !isQuiet { display.show(job.json) }
    return try JobWait.judged(job)
  }

  /// A job that is over, if it has ended well.
  static func judged(_ answer: APIClient.Answer) throws(ClientFault) -> APIClient.Answer {
    switch answer.json.at("state")?.text {
    case "failed":
      guard let error = answer.json.at("error") else {
        throw ClientFault(.jobFailed, "the job has failed")
      }
      throw ClientFault(.jobFailed, problem: error)
    case "cancelled": throw ClientFault(.jobCancelled, "the job was cancelled")
    default: return answer
    }
  }

  static func isOver(_ job: JSON) -> Bool { job.at("state")?.text.map(ends.contains) ?? false }

  /// - Returns: nil where nothing has changed.
  private func look(_ request: Request) throws(ClientFault) -> APIClient.Answer? {
    let deadline = Deadline.after(seconds: JobWait.patienceSeconds)
    while true {
      do throws(ClientFault) {
        let answer = try client.send(request)
        return answer.status == 304 ? nil : answer
      } catch {
        guard error.status == .unreachable, !deadline.hasPassed else { throw error }
        poll(nil, 0, 500)
      }
    }
  }
}
