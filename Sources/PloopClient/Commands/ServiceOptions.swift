internal import ArgumentParser
internal import PloopPeer

/// Where the service is, who asks, and how the answer is shown: the options of every command.
struct ServiceOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Where the service is: unix:PATH, http://HOST:PORT or https://HOST:PORT; otherwise PLOOPD_ADDRESS, then /run/ploopd/api.sock or var/api.sock.",
      valueName: "address"))
  var address: String?
  @Option(
    help: ArgumentHelp(
      "A file with a token; otherwise, over TCP, PLOOPD_TOKEN has it.", valueName: "file"),
    completion: .file())
  var tokenFile: String?
  @Option(
    name: .customLong("ca"),
    help: ArgumentHelp(
      "Certificates of the authorities that vouch for the service; otherwise PLOOPD_CA, then the system's.",
      valueName: "file"), completion: .file())
  var authorities: String?
  @Option(
    name: .customLong("cert"),
    help: ArgumentHelp("One's own certificate; otherwise PLOOPD_CERT.", valueName: "file"),
    completion: .file())
  var certificate: String?
  @Option(
    help: ArgumentHelp("Its key; otherwise PLOOPD_KEY.", valueName: "file"), completion: .file())
  var key: String?
  @Option(
    help: ArgumentHelp("How long one request may take.", valueName: "seconds"))
  var timeout = 90
  @Flag(help: "Print what the service answers, as JSON; its problems too.") var json = false
  @Flag(help: "Print the call of curl that does the same, and do nothing.") var curl = false

  func validate() throws {
    guard (1...86_400).contains(timeout) else {
      throw ValidationError("--timeout: 1 to 86400 seconds are expected")
    }
  }

  func client() throws(ClientFault) -> APIClient {
    let endpoint = try endpoint()
    return APIClient(
      endpoint: endpoint, token: try Token.find(file: tokenFile, for: endpoint), tls: identity,
      seconds: timeout)
  }

  private func endpoint() throws(ClientFault) -> Endpoint {
    guard let text = address ?? environment("PLOOPD_ADDRESS") else { return .usual }
    return try Endpoint(text)
  }

  private var identity: HTTPClient.Identity {
    HTTPClient.Identity(
      authorities: authorities ?? environment("PLOOPD_CA"),
      certificate: certificate ?? environment("PLOOPD_CERT"), key: key ?? environment("PLOOPD_KEY"))
  }

  /// The same request for people who have curl.
  func curlText(of request: Request) throws(ClientFault) -> String {
    let endpoint = try endpoint()
    let files = [
      ("--cacert", identity.authorities), ("--cert", identity.certificate), ("--key", identity.key),
    ]
    return CurlText(
      endpoint: endpoint, token: try Token.find(file: tokenFile, for: endpoint),
      identity: files.map { (option: $0.0, file: $0.1) }
    ).text(of: request)
  }
}
