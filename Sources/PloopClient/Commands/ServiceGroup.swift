internal import ArgumentParser
internal import PloopJSON

struct ServiceGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "service", abstract: "The service itself: version, health, metrics.",
    subcommands: [
      ServiceShow.self, ServiceHealth.self, ServiceReady.self, ServiceMetrics.self,
      ServiceDiagnostics.self,
    ])
}

struct ServiceShow: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show version, limits, roots and addresses for NBD.")
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getService) }
}

struct ServiceHealth: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "health",
    abstract: "Show whether it lives, and what fails without which it goes on.")
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getHealth) }
}

struct ServiceReady: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "ready",
    abstract: "Show whether all devices are back after a start; status 6 where they are not.")
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getReadiness) }

  func perform(_ request: Request, _ client: APIClient) throws(ClientFault) {
    let answer = try client.answer(request)
    guard answer.json.member("checks") != nil else { throw APIClient.fault(answer) }
    try show(answer, view)
    guard answer.status == 200 else {
      throw ClientFault(.unreachable, "the service is not ready")
    }
  }
}

struct ServiceMetrics: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "metrics", abstract: "Print all that is measured, as Prometheus reads it.")
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getMetrics) }
  var view: View { .raw }
}

struct ServiceDiagnostics: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "diagnostics", abstract: "Show everything at once that helps to find a fault.")
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getDiagnostics) }
}
