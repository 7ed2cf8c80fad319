/// Why a benchmark could not be done, or what was wrong with what a server did.
package struct BenchFailure: Error, Sendable, CustomStringConvertible {
  package let description: String
  package init(_ description: String) { self.description = description }
}
