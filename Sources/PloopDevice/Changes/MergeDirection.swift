/// Which of two neighbouring deltas receives what the other one holds.
package enum MergeDirection: String, Sendable, Codable {
  /// The newer one: what only the older one holds is copied up.
  case forward
  /// The older one: all that the newer one holds is copied down, over what is there.
  case backward
}
