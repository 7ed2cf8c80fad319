internal import PloopJSON

/// A request as a command line of curl that does the same.
struct CurlText {
  let endpoint: Endpoint
  let token: Token?
  let identity: [(option: String, file: String?)]

  func text(of request: Request) -> String {
    var words = ["curl", "-sS", "--fail-with-body"]
    if case .socket(let path) = endpoint { words += ["--unix-socket", CurlText.quoted(path)] }
    for case (let option, let file?) in identity { words += [option, CurlText.quoted(file)] }
    if request.method != "GET" { words += ["-X", request.method] }
    for header in request.headers { words += ["-H", CurlText.quoted(header)] }
    var secret: String?
    switch token?.source {
    case .file(let path, isHeader: true)?: words += ["-H", CurlText.quoted("@\(path)")]
    case .file(let path, isHeader: false)?: secret = "$(cat \(CurlText.quoted(path)))"
    case .environment?: secret = "$\(Token.variable)"
    case nil: break
    }
    // By standard input, so that it is in no list of processes.
    if secret != nil { words += ["-H", "@-"] }
    if let body = request.body {
      words += [
        "-H", "'Content-Type: application/json'", "--data-raw",
        CurlText.quoted(String(decoding: body.encoded, as: UTF8.self)),
      ]
    }
    words.append(CurlText.quoted(endpoint.base + request.target))
    let line = words.joined(separator: " ")
    return secret.map { "\(line) <<END\nAuthorization: Bearer \($0)\nEND" } ?? line
  }

  /// A word that no shell changes.
  static func quoted(_ text: String) -> String {
    let plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/:@=,+%"
    guard text.isEmpty || !text.allSatisfy(plain.contains) else { return text }
    return "'" + text.replacing("'", with: "'\\''") + "'"
  }
}
