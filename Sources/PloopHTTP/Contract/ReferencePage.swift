internal import PloopJSON

// The reference of all operations: what the contract says, for people with curl.

extension Contract {
  private static let address = "http://127.0.0.1:7447"

  func referencePage() -> WebFile {
    let info = document.member("info")
    var page = WebPage(title: "The interface of \(info?.member("title")?.text ?? "")")
    page.add(WebPage.prose(info?.member("description")?.text ?? ""))
    page.add(
      "<p>The same for programs: <a href=\"/openapi.json\">openapi.json</a>. <a href=\"/problems\">All problems</a>.</p>"
    )
    let tags = document.member("tags")?.items ?? []
    page.add("<nav>\n" + tags.map(contents(of:)).joined(separator: "\n") + "\n</nav>")
    for tag in tags {
      page.add("<h2>\(WebPage.line(tag.member("description")?.text ?? ""))</h2>")
      for operation in operations where isTagged(operation, tag) {
        page.add(section(of: operation))
      }
    }
    page.add("<h2 id=\"schemas\">Schemas</h2>")
    for schema in document.member("components")?.member("schemas")?.members ?? [] {
      page.add(section(of: schema))
    }
    return page.file
  }

  private func isTagged(_ operation: Operation, _ tag: JSON) -> Bool {
    operation.value.member("tags")?.items.first == tag.member("name")
  }

  private func contents(of tag: JSON) -> String {
    let links = operations.filter { isTagged($0, tag) }.map { "<li>\(link(to: $0))</li>" }
    return "<h4>\(WebPage.line(tag.member("description")?.text ?? ""))</h4>\n<ul>\n"
      + links.joined(separator: "\n") + "</ul>"
  }

  private func section(of operation: Operation) -> String {
    let value = operation.value
    var parts = [
      "<h3 id=\"\(operation.id)\"><span class=\"method\">\(operation.method)</span> \(WebPage.code(WebPage.escaped(operation.path)))</h3>",
      "<p><strong>\(WebPage.line(value.member("summary")?.text ?? ""))</strong> <span class=\"note\">\(scope(of: operation))</span></p>",
    ]
    if let text = value.member("description")?.text { parts.append(WebPage.prose(text)) }
    parts.append(
      "<pre>\(curlLines(of: operation).map(WebPage.escaped).joined(separator: "\n"))</pre>")
    parts.append(
      WebPage.table(
        ["parameter", "in", "what", "about it"],
        operation.parameters.map { parameter in
          let schema = parameter.member("schema") ?? .null
          return [
            WebPage.code(WebPage.escaped(parameter.member("name")?.text ?? "")),
            parameter.member("in")?.text ?? "",
            [kind(of: schema), limits(of: schema)].filter { !$0.isEmpty }.joined(separator: "; "),
            WebPage.line(parameter.member("description")?.text ?? ""),
          ]
        }))
    if let body = body(of: operation)?.member("schema") {
      parts.append("<p>Body: \(kind(of: body))</p>")
    }
    parts.append(
      WebPage.table(["status", "what"], operation.responses.map { row(of: $0, operation) }))
    return parts.filter { !$0.isEmpty }.joined(separator: "\n")
  }

  private func scope(of operation: Operation) -> String {
    let ways = operation.value.member("security")?.items ?? []
    guard let scope = ways.first?.members.first?.value.items.first?.text else {
      return "For everybody."
    }
    return "Scope \(WebPage.code(scope))."
  }

  private func body(of operation: Operation) -> JSON? {
    operation.value.member("requestBody")?.member("content")?.member("application/json")
  }

  private func row(of response: (status: String, value: JSON), _ operation: Operation) -> [String] {
    let slugs = operation.problems.filter {
      String(ProblemCatalogue.entry($0).status) == response.status
    }
    let problems = slugs.sorted().map(WebPage.problem).joined(separator: ", ")
    if !slugs.isEmpty, response.value.member("content")?.members.count == 1 {
      return [response.status, problems]
    }
    let kinds = (response.value.member("content")?.members ?? []).map { content in
      "\(WebPage.code(WebPage.escaped(content.name))) \(kind(of: content.value.member("schema") ?? .null))"
    }
    return [
      response.status,
      ([WebPage.line(response.value.member("description")?.text ?? "")] + kinds
        + (slugs.isEmpty ? [] : [problems])).joined(separator: "<br>"),
    ]
  }

  /// One line for each example of a body, or one where there is none.
  private func curlLines(of operation: Operation) -> [String] {
    var path = operation.path
    var query: [String] = []
    for parameter in operation.parameters {
      guard let name = parameter.member("name")?.text, let example = parameter.member("example")
      else { continue }
      switch parameter.member("in")?.text {
      case "path": path = path.replacing("{\(name)}", with: text(example))
      case "query" where parameter.member("required") == .bool(true):
        query.append("\(name)=\(text(example))")
      default: break
      }
    }
    let target = query.isEmpty ? path : "\(path)?\(query.joined(separator: "&"))"
    var command = "curl -H \"Authorization: Bearer $TOKEN\""
    if operation.value.member("security")?.items.isEmpty == true { command = "curl" }
    if operation.method != "GET" { command += " -X \(operation.method)" }
    command += " '\(Contract.address)\(target)'"
    let examples = body(of: operation)?.member("examples")?.members ?? []
    guard !examples.isEmpty else { return [command] }
    return examples.map { example in
      let body = text(example.value.member("value") ?? .null).replacing("'", with: "'\\''")
      return "\(command) -H 'Content-Type: application/json' -d '\(body)'"
    }
  }
}
