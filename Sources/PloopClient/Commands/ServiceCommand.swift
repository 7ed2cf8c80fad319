internal import ArgumentParser
internal import Glibc
internal import PloopIO
internal import PloopJSON
internal import PloopTerminal

/// A command that speaks with the service.
protocol ServiceCommand: ParsableCommand {
  var service: ServiceOptions { get }
  /// What is asked of it, as the command line says.
  var request: Request { get throws }
  /// What `--curl` shows of it.
  func shown(_ request: Request) -> Request
  func perform(_ request: Request, _ client: APIClient) throws(ClientFault)
}

extension ServiceCommand {
  func shown(_ request: Request) -> Request { request }

  /// A value on the command line that cannot be is found before anything is done.
  func validate() throws { _ = try request }

  func run() throws {
    let request = try self.request
    do throws(ClientFault) {
      guard !service.curl else {
        return Output.print([try service.curlText(of: shown(request))])
      }
      try perform(request, try service.client())
    } catch {
      if service.json, let problem = error.problem { Output.print(problem) }
      throw error
    }
  }

  func show(_ answer: APIClient.Answer, _ view: View) throws(ClientFault) {
    guard answer.json != .null || !view.needsJSON else {
      throw ClientFault(.other, "the answer is not understood")
    }
    guard service.json else {
      Output.print(view.lines(of: answer, width: Terminal.columns))
      return
    }
    switch view {
    case .raw: Output.print(View.raw.lines(of: answer, width: nil))
    default: if answer.json != .null { Output.print(answer.json) }
    }
  }
}

/// A command that is one request.
protocol RequestCommand: ServiceCommand {
  var view: View { get }
  /// What is asked before it, where it cannot be undone.
  var question: (text: String, isAnswered: Bool)? { get }
}

extension RequestCommand {
  var view: View { .details }
  var question: (text: String, isAnswered: Bool)? { nil }

  func perform(_ request: Request, _ client: APIClient) throws(ClientFault) {
    if let question { try Question.ask(question.text, isAnswered: question.isAnswered) }
    guard case .bytes = view else { return try show(try client.all(request), view) }
    // As much as a disk has, for as long as bytes come.
    var stream = client
    stream.seconds = 0
    try stream.stream(request) { bytes in
      Output.write(Array(bytes))
      return true
    }
  }
}

extension APIClient {
  /// A list with all its parts, where the answer is one.
  func all(_ request: Request) throws(ClientFault) -> Answer {
    var answer = try send(request)
    guard var next = answer.json.at("next")?.text, case .object(var members) = answer.json else {
      return answer
    }
    var items = answer.json.member("items")?.items ?? []
    while true {
      let part = try send(request.adding("cursor", next)).json
      items += part.member("items")?.items ?? []
      guard let following = part.at("next")?.text else { break }
      next = following
    }
    for index in members.indices {
      if members[index].name == "items" {
        members[index] = JSON.Member(name: "items", value: .array(items))
      } else if members[index].name == "next" {
        members[index] = JSON.Member(name: "next", value: .null)
      }
    }
    answer.json = .object(members)
    return answer
  }
}

/// Standard output.
enum Output {
  static func print(_ lines: [String]) { write(Array(lines.map { "\($0)\n" }.joined().utf8)) }

  static func print(_ value: JSON) { write(value.encoded + [UInt8(ascii: "\n")]) }

  /// Where nobody reads any more, as behind `head`, the program ends as all others do; what cannot be written ends it
  /// with an error, since half a copy is none.
  static func write(_ bytes: [UInt8]) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
      guard count > 0 else {
        let code = errno
        if count < 0, code == EINTR { continue }
        if code == EPIPE {
          signal(SIGPIPE, SIG_DFL)
          raise(SIGPIPE)
        }
        writeToStandardError("ploopctl: cannot write: \(IOError.text(of: code))\n")
        _exit(Outcome.other.rawValue)
      }
      rest = rest.dropFirst(count)
    }
  }
}
