import PloopJSON

@testable import PloopHTTP

/// As much of JSON Schema as openapi.yaml uses; a keyword that it does not know is a complaint.
struct JSONSchema {
  private static let notes: Set<String> = [
    "description", "default", "examples", "contentMediaType",
  ]

  /// The document in which `$ref` is looked up.
  let document: JSON

  /// - Returns: what does not fit, each with its place; empty when all fits.
  func complaints(about value: JSON, by schema: JSON, at place: String = "") -> [String] {
    guard case .object(let keywords) = schema else { return ["\(place): no schema"] }
    return keywords.flatMap { keyword in
      JSONSchema.notes.contains(keyword.name)
        ? [] : complaints(about: value, keyword.name, keyword.value, schema, place)
    }
  }

  /// The value at a reference of the document.
  func find(_ reference: JSON) -> JSON {
    guard case .string(let text) = reference else { return .null }
    return text.dropFirst(2).split(separator: "/").reduce(document) { found, name in
      found.member(String(name)) ?? .null
    }
  }

  private func complaints(
    about value: JSON, _ keyword: String, _ rule: JSON, _ schema: JSON, _ place: String
  ) -> [String] {
    func check(_ fits: Bool) -> [String] {
      fits ? [] : ["\(place): \(keyword) \(text(rule)) does not fit \(text(value))"]
    }
    switch (keyword, rule, value) {
    case ("$ref", _, _): return complaints(about: value, by: find(rule), at: place)
    case ("type", .array(let types), _): return check(types.contains { isOf($0, value) })
    case ("type", _, _): return check(isOf(rule, value))
    case ("enum", .array(let values), _): return check(values.contains(value))
    case ("oneOf", .array(let schemas), _):
      return check(schemas.count { complaints(about: value, by: $0, at: place).isEmpty } == 1)
    case ("contentSchema", _, .string(let text)):
      guard let content = try? JSONParser.parse(Array(text.utf8)) else { return check(false) }
      return complaints(about: content, by: rule, at: place)
    case ("pattern", .string(let pattern), .string(let text)):
      return check((try? Regex(pattern).firstMatch(in: text)) != nil)
    case ("minLength", .integer(let least), .string(let text)):
      return check(text.unicodeScalars.count >= least)
    case ("maxLength", .integer(let most), .string(let text)):
      return check(text.unicodeScalars.count <= most)
    case ("minimum", .integer(let least), .integer(let number)): return check(number >= least)
    case ("minimum", .integer(let least), .number(let number)):
      return check(number >= Double(least))
    case ("maximum", .integer(let most), .integer(let number)): return check(number <= most)
    case ("minItems", .integer(let least), .array(let items)): return check(items.count >= least)
    case ("maxItems", .integer(let most), .array(let items)): return check(items.count <= most)
    case ("uniqueItems", .bool(true), .array(let items)):
      return check(items.indices.allSatisfy { !items[..<$0].contains(items[$0]) })
    case ("items", _, .array(let items)):
      return items.enumerated().flatMap {
        complaints(about: $0.element, by: rule, at: "\(place)/\($0.offset)")
      }
    case ("required", .array(let names), .object(let members)):
      return check(names.allSatisfy { name in members.contains { .string($0.name) == name } })
    case ("dependentRequired", .object(let rules), .object):
      let broken = rules.filter { rule in
        guard value.member(rule.name) != nil, case .array(let names) = rule.value else {
          return false
        }
        return names.contains { name in
          guard case .string(let name) = name else { return true }
          return value.member(name) == nil
        }
      }
      return check(broken.isEmpty)
    case ("dependentSchemas", .object(let rules), .object):
      return rules.filter { value.member($0.name) != nil }
        .flatMap { complaints(about: value, by: $0.value, at: place) }
    case ("maxProperties", .integer(let most), .object(let members)):
      return check(members.count <= most)
    case ("propertyNames", _, .object(let members)):
      return members.flatMap { complaints(about: .string($0.name), by: rule, at: place) }
    case ("properties", _, .object(let members)):
      return members.flatMap { member in
        rule.member(member.name).map {
          complaints(about: member.value, by: $0, at: "\(place)/\(member.name)")
        } ?? []
      }
    case ("additionalProperties", _, .object(let members)):
      return members.filter { schema.member("properties")?.member($0.name) == nil }.flatMap {
        rule == .bool(true)
          ? []
          : rule == .bool(false)
            ? ["\(place)/\($0.name): unknown member"]
            : complaints(about: $0.value, by: rule, at: "\(place)/\($0.name)")
      }
    case ("pattern", _, _), ("minLength", _, _), ("maxLength", _, _), ("minimum", _, _),
      ("maximum", _, _), ("minItems", _, _), ("maxItems", _, _), ("uniqueItems", _, _),
      ("items", _, _), ("required", _, _),
      ("dependentRequired", _, _), ("dependentSchemas", _, _), ("maxProperties", _, _),
      ("propertyNames", _, _),
      ("properties", _, _),
      ("additionalProperties", _, _):
      // They say nothing about values of other types.
      return []
    default: return ["\(place): unknown keyword \(keyword)"]
    }
  }

  private func isOf(_ type: JSON, _ value: JSON) -> Bool {
    switch (type, value) {
    case (.string("null"), .null), (.string("boolean"), .bool), (.string("integer"), .integer),
      (.string("number"), .integer), (.string("number"), .number), (.string("string"), .string),
      (.string("array"), .array), (.string("object"), .object):
      true
    default: false
    }
  }

  private func text(_ value: JSON) -> String { String(decoding: value.encoded, as: UTF8.self) }
}
