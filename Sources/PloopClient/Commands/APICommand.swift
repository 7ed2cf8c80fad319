internal import ArgumentParser
internal import PloopJSON

/// `ploopctl api`: any request.
struct APICommand: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "api", abstract: "Send any request, and print what is answered.",
    discussion:
      "Example: ploopctl api POST /v1/jobs --data '{\"type\":\"hash\",\"device\":\"vm1\"}'")
  @Argument(help: "GET, POST, PATCH or DELETE.") var method: String
  @Argument(help: "Path and query, encoded, as /v1/devices?limit=10.") var path: String
  @Option(help: ArgumentHelp("The body.", valueName: "json")) var data: String?
  @Option(
    name: .customLong("header"),
    help: ArgumentHelp("A header, as 'Prefer: wait=30'; several may be given.", valueName: "line"))
  var headers: [String] = []
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      guard path.hasPrefix("/"), path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
        throw ValidationError("\(path) is no path: /v1/… is expected, encoded")
      }
      guard !method.isEmpty, method.utf8.allSatisfy({ (0x41...0x5A).contains($0) }) else {
        throw ValidationError("\(method) is no method")
      }
      guard headers.allSatisfy({ $0.contains(":") && $0.utf8.allSatisfy { $0 >= 0x20 } }) else {
        throw ValidationError("--header: NAME: VALUE is expected")
      }
      var request = Request(method, path)
      request.headers = headers
      request.body = try data.map { text throws -> JSON in
        do throws(JSONFault) { return try JSONParser.parse(Array(text.utf8)) } catch {
          throw ValidationError("--data: \(error.detail)")
        }
      }
      return request
    }
  }
  var view: View { .raw }

  func perform(_ request: Request, _ client: APIClient) throws(ClientFault) {
    try show(try client.send(request), view)
  }
}
