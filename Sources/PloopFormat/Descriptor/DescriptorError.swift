/// Why a descriptor cannot be used or changed so, by a code that never changes its meaning.
package struct DescriptorError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The raw values are the slugs of the problem catalogue.
  package enum Code: String, Sendable, CaseIterable {
    /// It is no XML that a descriptor may have, or does not say what it must.
    case invalid = "descriptor-invalid"
    case snapshotNotFound = "snapshot-not-found"
    case snapshotExists = "snapshot-exists"
    /// More than one shot builds on the snapshot.
    case hasBranches = "snapshot-has-branches"
    /// What was asked for makes no sense for this shot of the tree.
    case notPossible = "snapshot-not-possible"
    case tooManyShots = "too-many-deltas"
  }

  package let code: Code
  package let detail: String

  package init(_ code: Code, _ detail: String) {
    self.code = code
    self.detail = detail
  }

  package var description: String { "\(code.rawValue): \(detail)" }
}
