internal import ArgumentParser
internal import PloopJSON
internal import PloopTerminal

/// Whether a job is waited for.
struct Waiting: ParsableArguments {
  @Flag(
    name: .shortAndLong,
    help: "Wait for its end, and show how far it is; Ctrl-C leaves the job running.")
  var wait = false
  @Flag(name: .shortAndLong, help: "Show nothing while waiting.") var quiet = false
}

/// How a job is begun and looked at: the options of every command that makes one.
struct JobCourse: ParsableArguments {
  @Flag(help: "Show what would be done, and do nothing.") var dryRun = false
  @OptionGroup var consent: Consent
  @OptionGroup var waiting: Waiting
}

/// A command that begins a job.
protocol JobCommand: ServiceCommand {
  var waiting: Waiting { get }
  /// Whether only the plan is wanted, and whether the question is answered.
  var isDryRun: Bool { get }
  var isAnswered: Bool { get }
  /// What is asked, with the plan, before it; nil for what only adds something.
  var question: String? { get }
}

extension JobCommand {
  var question: String? { nil }

  func shown(_ request: Request) -> Request {
    if isDryRun { return request.adding("dry_run", "true") }
    var request = request
    if waiting.wait { request.headers.append("Prefer: wait=60") }
    return request
  }

  func perform(_ request: Request, _ client: APIClient) throws(ClientFault) {
    let plan = request.adding("dry_run", "true")
    if isDryRun { return try show(try client.send(plan), .plan) }
    if let question {
      if !service.json {
        let lines = View.plan.lines(of: try client.send(plan), width: Terminal.columns)
        writeToStandardError(lines.joined(separator: "\n") + "\n")
      }
      try Question.ask(question, isAnswered: isAnswered)
    }
    try follow(try client.send(request), client)
  }

  /// - Parameter begun: the job as it was answered.
  private func follow(_ begun: APIClient.Answer, _ client: APIClient) throws(ClientFault) {
    guard let id = begun.json.at("id")?.text else {
      throw ClientFault(.other, "the answer is no job")
    }
    guard waiting.wait else { return try show(begun, .job) }
    let isQuiet = waiting.quiet || service.json
    try show(try JobWait(client: client, id: id, isQuiet: isQuiet).end(), .job)
  }
}

/// One that begins a job by what is to be done.
protocol PlannedCommand: JobCommand {
  var course: JobCourse { get }
}

extension PlannedCommand {
  var waiting: Waiting { course.waiting }
  var isDryRun: Bool { course.dryRun }
  var isAnswered: Bool { course.consent.yes }
}

/// What every job that is begun by its type can have.
struct JobOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("Whose turn it is: 0 to 100, otherwise 50.", valueName: "number"))
  var priority: Int?
  @OptionGroup var limits: LimitOptions
  @Option(
    help: ArgumentHelp(
      "After a job that has to succeed first; several may be given.", valueName: "job"),
    completion: .names(of: .listJobs))
  var after: [String] = []
  @Option(help: ArgumentHelp("Not before, as 2027-01-31T00:00:00Z.", valueName: "time"))
  var notBefore: String?
  @Option(
    help: ArgumentHelp(
      "How often it is tried where what it failed of may pass.", valueName: "count"))
  var attempts: Int?
  @Option(
    help: ArgumentHelp("Between two attempts.", valueName: "seconds"))
  var backoff: Int?
  @Option(
    help: ArgumentHelp(
      "While a job with this key is not over, no other one is made.", valueName: "key"))
  var dedupeKey: String?
  @OptionGroup var labels: LabelOptions

  func request(_ type: String, device: String? = nil, _ params: JSON? = nil) throws -> Request {
    let retry = JSON.members([
      "max_attempts": attempts.map { .integer(Int64($0)) },
      "backoff_seconds": backoff.map { .integer(Int64($0)) },
    ])
    return Request(
      .addJob,
      body: .members([
        "type": .string(type), "device": device.map(JSON.string),
        "params": params == .object([]) ? nil : params,
        "priority": priority.map { .integer(Int64($0)) }, "limits": limits.json,
        "after": after.isEmpty ? nil : .array(after.map(JSON.string)),
        "not_before": notBefore.map(JSON.string), "retry": retry == .object([]) ? nil : retry,
        "dedupe_key": dedupeKey.map(JSON.string), "labels": try labels.json,
      ]))
  }
}

/// The options of every command that begins a job by its type.
struct RunOptions: ParsableArguments {
  @OptionGroup(title: "Any job") var job: JobOptions
  @OptionGroup(title: "Course") var course: JobCourse
  @OptionGroup(title: "The service") var service: ServiceOptions

  func request(_ type: String, device: String? = nil, _ params: JSON? = nil) throws -> Request {
    try job.request(type, device: device, params)
  }
}

/// One of `ploopctl run`.
protocol RunCommand: PlannedCommand {
  var options: RunOptions { get }
}

extension RunCommand {
  var course: JobCourse { options.course }
  var service: ServiceOptions { options.service }
}

extension View {
  /// What a job would do.
  static let plan = View.summary(of: "plan", leavingOut: [])

  /// A job without its settings.
  static let job = View.summary(
    of: nil,
    leavingOut: [
      "params", "phases", "progress", "limits", "after", "retry", "labels", "priority", "attempt",
      "cancellable", "resumable", "revision", "stalled", "paused", "interruptions", "created_at",
    ])
}
