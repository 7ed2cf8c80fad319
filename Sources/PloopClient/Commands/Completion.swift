internal import ArgumentParser
internal import PloopJSON
internal import PloopPeer

extension CompletionKind {
  /// Names of what a list of the service has, asked of it while somebody types.
  static func names(of operation: Operation, by member: String = "id") -> CompletionKind {
    .custom { words, _, _ in Completion.names(of: operation, by: member, words) }
  }
}

enum Completion {
  private static let seconds = 2

  /// - Parameter words: of the command line so far; they may say where the service is.
  static func names(of operation: Operation, by member: String, _ words: [String]) -> [String] {
    func value(_ option: String) -> String? {
      guard let index = words.firstIndex(of: option), index + 1 < words.count else { return nil }
      return words[index + 1]
    }
    var options = ["--timeout", String(seconds)]
    for name in ["--address", "--token-file", "--ca", "--cert", "--key"] {
      if let text = value(name) { options += [name, text] }
    }
    guard let client = try? ServiceOptions.parse(options).client(),
      let answer = try? client.send(Request(operation, query: ["limit": "1000"]))
    else { return [] }
    return (answer.json.member("items")?.items ?? []).compactMap { $0.at(member)?.text }
  }
}
