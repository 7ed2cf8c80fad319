internal import PloopJSON
internal import Yams

// How documents of this program's own are read.

extension JSON {
  /// - Throws: `internal` for what is no YAML, or has what JSON has not.
  init(yaml: String) throws(Problem) {
    let root: Node?
    do { root = try Yams.compose(yaml: yaml) } catch {
      throw Problem("internal", "a document is no YAML: \(error)")
    }
    guard let root else { throw Problem("internal", "a document is empty") }
    try self.init(root)
  }

  private init(_ node: Node) throws(Problem) {
    switch node {
    case .scalar(let scalar):
      if node.tag == Tag(.null) {
        self = .null
      } else if node.tag == Tag(.bool), let flag = node.bool {
        self = .bool(flag)
      } else if node.tag == Tag(.int), let number = node.int {
        self = .integer(Int64(number))
      } else if node.tag == Tag(.float), let number = node.float {
        self = .number(number)
      } else {
        self = .string(scalar.string)
      }
    case .sequence(let nodes):
      var items: [JSON] = []
      for node in nodes { items.append(try JSON(node)) }
      self = .array(items)
    case .mapping(let pairs):
      var members: [Member] = []
      for (key, value) in pairs {
        guard let name = key.string else { throw Problem("internal", "a member has no name") }
        members.append(Member(name: name, value: try JSON(value)))
      }
      self = .object(members)
    case .alias: throw Problem("internal", "a document has an alias")
    }
  }
}
