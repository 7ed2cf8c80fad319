/// Files by number, used without counting references: what a disk's requests go through.
///
/// The table holds its files, and whoever uses it holds the table, so none of them can go meanwhile.
/// An array of files would count each one in and out for every request.
package final class FileTable: @unchecked Sendable {
  private let files: [ImageFile]
  private let borrowed: UnsafeMutablePointer<Unmanaged<ImageFile>>

  package init(_ files: [ImageFile]) {
    self.files = files
    borrowed = .allocate(capacity: max(1, files.count))
    for (index, file) in files.enumerated() {
      (borrowed + index).initialize(to: Unmanaged.passUnretained(file))
    }
  }

  deinit { borrowed.deallocate() }

  /// ``ImageFile/readNow(into:at:)`` of the file with this number.
  package func readNow(_ number: Int, into region: ByteRegion, at offset: UInt64) -> Bool {
    precondition(number >= 0 && number < files.count)
    return borrowed[number]._withUnsafeGuaranteedRef { $0.readNow(into: region, at: offset) }
  }
}
