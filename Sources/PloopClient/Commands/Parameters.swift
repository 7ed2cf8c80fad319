internal import ArgumentParser
internal import PloopJSON

/// Parameters of a job as they stand on a command line: `to.id=vm2`.
enum Parameters {
  static func json(_ texts: [String]) throws -> JSON {
    try texts.reduce(.object([])) { object, text in
      let parameter = try pair(text, "--param")
      let path = parameter.name.split(separator: ".").map(String.init)
      return try setting(path[...], to: value(parameter.value.text ?? ""), in: object, text)
    }
  }

  private static func value(_ text: String) -> JSON {
    (try? JSONParser.parse(Array(text.utf8))) ?? .string(text)
  }

  private static func setting(
    _ path: ArraySlice<String>, to value: JSON, in object: JSON, _ text: String
  ) throws -> JSON {
    guard case .object(var members) = object, let name = path.first else {
      throw ValidationError("--param: \(text) is within what has a value of its own")
    }
    let rest = path.dropFirst()
    let index = members.firstIndex { $0.name == name }
    guard rest.isEmpty == false || index == nil else {
      throw ValidationError("--param: \(name) is there twice")
    }
    let inner = index.map { members[$0].value } ?? .object([])
    let member = JSON.Member(
      name: name, value: rest.isEmpty ? value : try setting(rest, to: value, in: inner, text))
    if let index { members[index] = member } else { members.append(member) }
    return .object(members)
  }
}
