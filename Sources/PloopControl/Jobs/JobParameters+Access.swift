extension JobParameters {
  /// Who may use the export that a job opens; nil for everybody.
  ///
  /// - Parameter export: its name; rules are of nothing where there is none.
  mutating func access(of export: String?) throws(ServiceError) -> ExportAccess? {
    guard var members = try object("access") else { return nil }
    guard export != nil else {
      throw impossible("access", "there is no export that they could be of")
    }
    let access = ExportAccess(
      tls: try members.flag("tls") ?? false, names: try members.anyTexts("names"),
      addresses: try members.anyTexts("addresses"))
    try members.finish()
    try access.validate(within: place)
    return access
  }

  private mutating func anyTexts(_ name: String) throws(ServiceError) -> [String]? {
    guard let items = try list(name) else { return nil }
    let texts = items.compactMap { item -> String? in
      if case .text(let text) = item { text } else { nil }
    }
    guard texts.count == items.count else { throw wrong(name, "strings are expected") }
    return texts
  }
}

extension ExportAccess {
  /// As a job's parameters have it.
  var value: JobValue {
    var members: [String: JobValue] = ["tls": .flag(tls)]
    members["names"] = names.map { .list($0.map(JobValue.text)) }
    members["addresses"] = addresses.map { .list($0.map(JobValue.text)) }
    return .object(members)
  }
}
