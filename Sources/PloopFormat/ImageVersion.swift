/// The two versions of the format; they differ in the signature and in the unit of index entries.
package enum ImageVersion: Int, Sendable {
  /// Entries count sectors; disks under 2 TiB.
  case v1 = 1
  /// Entries count clusters.
  case v2 = 2
}
