/// An object that is used without counting references to it, where every request would count one.
///
/// Whoever holds this keeps the object as well, and longer: it is a view of something that its owner
/// holds for as long as it lives.
package struct Borrowed<Object: AnyObject & Sendable>: @unchecked Sendable {
  @usableFromInline let reference: Unmanaged<Object>

  package init(_ object: Object) { reference = .passUnretained(object) }

  /// Runs `body` with the object.
  @inlinable
  package func use<Result>(_ body: (Object) -> Result) -> Result {
    reference._withUnsafeGuaranteedRef(body)
  }
}

/// Files by number, used without counting references: an array of files would count each one in and
/// out for every request.
package final class FileTable: Sendable {
  private let files: [ImageFile]
  private let borrowed: [Borrowed<ImageFile>]

  package init(_ files: [ImageFile]) {
    self.files = files
    borrowed = files.map(Borrowed.init)
  }

  /// ``ImageFile/readNow(into:at:)`` of the file with this number.
  package func readNow(_ number: Int, into region: ByteRegion, at offset: UInt64) -> Bool {
    borrowed[number].use { $0.readNow(into: region, at: offset) }
  }
}
