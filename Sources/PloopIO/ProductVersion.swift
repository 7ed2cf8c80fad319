/// The version of the product, in one place; CHANGELOG.md tells what each brought.
package enum ProductVersion {
  package static let current = "0.1.0"
}
