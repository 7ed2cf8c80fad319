internal import PloopJSON

// Schemas of the contract for people.

extension Contract {
  /// What a value of the schema is, in a few words.
  func kind(of schema: JSON) -> String {
    if let name = schema.member("$ref")?.text?.split(separator: "/").last {
      return "<a href=\"#schema-\(name)\">\(name)</a>"
    }
    if let values = schema.member("enum")?.items, !values.isEmpty {
      return values.map { WebPage.code(WebPage.escaped(text($0))) }.joined(separator: ", ")
    }
    for word in ["oneOf", "anyOf"] {
      if let parts = schema.member(word)?.items {
        return parts.map(kind(of:)).joined(separator: " or ")
      }
    }
    if let value = schema.member("const") { return WebPage.code(WebPage.escaped(text(value))) }
    var types = schema.member("type")?.items.compactMap(\.text) ?? []
    if let type = schema.member("type")?.text { types.append(type) }
    return types.map { type in
      guard type == "array", let items = schema.member("items") else { return type }
      return "list of \(kind(of: items))"
    }.joined(separator: " or ")
  }

  /// What else it has to be.
  func limits(of schema: JSON) -> String {
    let words = [
      ("minimum", "at least"), ("maximum", "at most"), ("minLength", "characters: at least"),
      ("maxLength", "characters: at most"), ("minItems", "items: at least"),
      ("maxItems", "items: at most"), ("uniqueItems", "each once:"),
      ("multipleOf", "a multiple of"), ("pattern", "like"),
      ("default", "default"),
    ]
    return words.compactMap { name, words in
      schema.member(name).map { "\(words) \(WebPage.code(WebPage.escaped(text($0))))" }
    }.joined(separator: ", ")
  }

  /// One of the named schemas, with its members.
  func section(of schema: JSON.Member) -> String {
    let required = Set(schema.value.member("required")?.items.compactMap(\.text) ?? [])
    let members = schema.value.member("properties")?.members ?? []
    var parts = ["<h3 id=\"schema-\(schema.name)\">\(schema.name)</h3>"]
    if let text = schema.value.member("description")?.text { parts.append(WebPage.prose(text)) }
    if members.isEmpty {
      parts.append("<p>\(kind(of: schema.value)) \(limits(of: schema.value))</p>")
    }
    parts.append(
      WebPage.table(
        ["member", "", "what", "about it"],
        members.map { member in
          [
            WebPage.code(WebPage.escaped(member.name)),
            required.contains(member.name) ? "required" : "",
            [kind(of: member.value), limits(of: member.value)].filter { !$0.isEmpty }
              .joined(separator: "; "),
            WebPage.line(member.value.member("description")?.text ?? ""),
          ]
        }))
    return parts.joined(separator: "\n")
  }

  /// As a reader would write it: strings without quotes.
  func text(_ value: JSON) -> String {
    value.text ?? String(decoding: value.encoded, as: UTF8.self)
  }
}
