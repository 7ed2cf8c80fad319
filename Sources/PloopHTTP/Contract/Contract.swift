internal import CAssets
internal import PloopJSON

/// What openapi.yaml says, which was put into this program when it was built.
struct Contract: Sendable {
  /// One method of one path.
  struct Operation: Sendable {
    let method: String
    let path: String
    /// What stands in the document.
    let value: JSON
    /// Those of its path too, looked up.
    let parameters: [JSON]
    /// By its status, looked up.
    let responses: [(status: String, value: JSON)]
    /// The slugs of all problems that it can have.
    let problems: Set<String>

    var id: String { value.member("operationId")?.text ?? "" }
  }

  /// That of this program; read when somebody asks for it first.
  static let own: Result<Contract, Problem> = {
    let text = String(decoding: asset_openapi().array, as: UTF8.self)
    do throws(Problem) { return .success(Contract(try JSON(yaml: text))) } catch {
      return .failure(error)
    }
  }()

  let document: JSON
  let operations: [Operation]

  init(_ document: JSON) {
    self.document = document
    operations =
      document.member("paths")?.members.flatMap { path in
        Contract.operations(of: path, in: document)
      } ?? []
  }

  private static func operations(of path: JSON.Member, in document: JSON) -> [Operation] {
    let common = path.value.member("parameters")?.items ?? []
    return path.value.members.filter { $0.name != "parameters" }.map { method in
      let parameters = (common + (method.value.member("parameters")?.items ?? []))
        .map { resolved($0, in: document) }
      let responses = (method.value.member("responses")?.members ?? [])
        .map { ($0.name, resolved($0.value, in: document)) }
      let sources = [method.value] + parameters + responses.map(\.1)
      return Operation(
        method: method.name.uppercased(), path: path.name, value: method.value,
        parameters: parameters, responses: responses, problems: Set(sources.flatMap(problems)))
    }
  }

  /// What a part of the document says that it brings: `x-problems`.
  private static func problems(of part: JSON) -> [String] {
    part.member("x-problems")?.items.compactMap(\.text) ?? []
  }

  /// What stands at a reference, or the value itself where it is none.
  func resolved(_ value: JSON) -> JSON { Contract.resolved(value, in: document) }

  private static func resolved(_ value: JSON, in document: JSON) -> JSON {
    guard let reference = value.member("$ref")?.text else { return value }
    return reference.dropFirst(2).split(separator: "/").reduce(document) { found, name in
      found.member(String(name)) ?? .null
    }
  }
}
