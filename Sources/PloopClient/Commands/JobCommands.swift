internal import ArgumentParser
internal import PloopJSON

struct JobGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "jobs", abstract: "Long work that was begun: look at it, wait, pause, cancel.",
    subcommands: [
      JobList.self, JobShow.self, JobWaitCommand.self, JobLog.self, JobPause.self, JobResume.self,
      JobSet.self, JobCancel.self, JobRetry.self, JobDelete.self,
    ])
}

/// A job.
struct JobName: ParsableArguments {
  @Argument(help: "The job.", completion: .names(of: .listJobs)) var job: String
}

struct JobList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List jobs, the newest first.")
  @Option(
    help: ArgumentHelp(
      "Only those in this state: queued, running, paused, cancelling, succeeded, failed or cancelled.",
      valueName: "state"))
  var state: String?
  @Option(
    help: ArgumentHelp("Only those of this device.", valueName: "name"),
    completion: .names(of: .listDevices))
  var device: String?
  @Option(help: ArgumentHelp("Only those of this type.", valueName: "type")) var type: String?
  @OptionGroup var labels: LabelFilter
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      try labels.adding(
        to: Request(
          .listJobs, query: ["limit": "1000", "state": state, "device": device, "type": type]))
    }
  }
  var view: View {
    .table([
      Column("JOB", "id"), Column("TYPE", "type"), Column("DEVICE", "device"),
      Column("STATE", "state"), Column("PHASE", "phase"), Column("DONE", "progress", .percent),
      Column("RATE", "progress.rate_bps", .rate), Column("MADE", "created_at", .time),
      Column("ERROR", "error.code"),
    ])
  }
}

struct JobShow: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show a job with its progress and what it waits for.")
  @OptionGroup var name: JobName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getJob, [name.job]) }
}

struct JobWaitCommand: ServiceCommand {
  static let configuration = CommandConfiguration(
    commandName: "wait", abstract: "Wait for the end of a job, and show how far it is.",
    discussion:
      "Status 7 says that it has failed, 8 that it was cancelled. Ctrl-C leaves it running.")
  @OptionGroup var name: JobName
  @Flag(name: .shortAndLong, help: "Show nothing while waiting.") var quiet = false
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request { Request(.getJob, [name.job]) }

  func perform(_ request: Request, _ client: APIClient) throws(ClientFault) {
    let wait = JobWait(client: client, id: name.job, isQuiet: quiet || service.json)
    try show(try wait.end(), .job)
  }
}

struct JobLog: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "log", abstract: "Print what a job has said, a line of JSON each.")
  @OptionGroup var name: JobName
  @Option(help: ArgumentHelp("Only what comes behind this line.", valueName: "number"))
  var after: UInt64?
  @Option(
    name: .customLong("wait"),
    help: ArgumentHelp("Wait as long, at most 60, for a line.", valueName: "seconds"))
  var seconds: Int?
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .getJobLog, [name.job],
      query: ["after": after.map(String.init), "wait": seconds.map(String.init), "limit": "10000"])
  }
  var view: View { .raw }
}

struct JobPause: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "pause", abstract: "Let a job do nothing until it is resumed.")
  @OptionGroup var name: JobName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.changeJob, [name.job], body: .members(["paused": .bool(true)])) }
  var view: View { .job }
}

struct JobResume: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "resume", abstract: "Let a paused job go on.")
  @OptionGroup var name: JobName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.changeJob, [name.job], body: .members(["paused": .bool(false)])) }
  var view: View { .job }
}

struct JobSet: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Change priority and speed of a job while it runs.")
  @OptionGroup var name: JobName
  @Option(help: ArgumentHelp("0 to 100.", valueName: "number")) var priority: Int?
  @OptionGroup var limits: LimitOptions
  @Option(
    name: .customLong("param"),
    help: ArgumentHelp("Of a migration: max_downtime_ms=N.", valueName: "path=value"))
  var params: [String] = []
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      let body = JSON.members([
        "priority": priority.map { .integer(Int64($0)) }, "limits": limits.json,
        "params": params.isEmpty ? nil : try Parameters.json(params),
      ])
      guard body != .object([]) else { throw ValidationError("what is to be changed?") }
      return Request(.changeJob, [name.job], body: body)
    }
  }
  var view: View { .job }
}

struct JobCancel: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "cancel", abstract: "End a job at its next step.",
    discussion:
      "What it works on stays in order. A job that is committing comes to its end instead.")
  @OptionGroup var name: JobName
  @Option(
    help: ArgumentHelp("Wait as long, at most 60, until it is over.", valueName: "seconds"))
  var patience: Int?
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request {
    Request(.cancelJob, [name.job], headers: patience.map { ["Prefer: wait=\($0)"] } ?? [])
  }
  var view: View { .job }
}

struct JobRetry: JobCommand {
  static let configuration = CommandConfiguration(
    commandName: "retry", abstract: "Try a job anew that has failed or was cancelled.")
  @OptionGroup var name: JobName
  @OptionGroup var waiting: Waiting
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.retryJob, [name.job]) }
  var isDryRun: Bool { false }
  var isAnswered: Bool { true }
}

struct JobDelete: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Forget a job that is over.")
  @OptionGroup var name: JobName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.removeJob, [name.job]) }
  var view: View { .done("\(name.job): forgotten") }
}
