/// Every slug with its status, in one place. A slug never changes its meaning.
package enum ProblemCatalogue {
  package struct Entry: Sendable {
    package let slug: String
    package let status: Int
    package let title: String
    /// When it is answered; code is between backticks.
    package let cause: String
    /// What to do about it, likewise.
    package let remedy: String

    init(_ slug: String, _ status: Int, _ title: String, cause: String, remedy: String) {
      self.slug = slug
      self.status = status
      self.title = title
      self.cause = cause
      self.remedy = remedy
    }
  }

  /// In the order in which they are listed.
  package static let all: [Entry] = (requests + missing + conflicts + values + service)
    .sorted { ($0.status, $0.slug) < ($1.status, $1.slug) }

  package static let entries: [String: Entry] = {
    var entries: [String: Entry] = [:]
    for entry in all { entries[entry.slug] = entry }
    return entries
  }()

  static let internalError = Entry(
    "internal", 500, "Internal error", cause: "A mistake of this service.",
    remedy: "report it with the log")

  /// Unknown slugs would be our own mistake, and say so.
  package static func entry(_ slug: String) -> Entry {
    entries[slug] ?? internalError
  }
}
