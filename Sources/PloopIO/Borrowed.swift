/// An object that is used without counting references to it, where every request would count one.
///
/// Whoever holds this keeps the object as well, and longer: it is a view of something that its owner
/// holds for as long as it lives.
package struct Borrowed<Object: AnyObject & Sendable>: @unchecked Sendable {
  @usableFromInline let reference: Unmanaged<Object>

  package init(_ object: Object) { reference = .passUnretained(object) }

  /// Whether this is a view of that object.
  package func isView(of object: Object) -> Bool {
    reference.toOpaque() == Unmanaged.passUnretained(object).toOpaque()
  }

  /// Runs `body` with the object.
  @inlinable
  package func use<Result>(_ body: (Object) -> Result) -> Result {
    reference._withUnsafeGuaranteedRef(body)
  }
}

/// An object that is replaced now and then, and used without counting references in between.
package final class Replaceable<Object: AnyObject & Sendable>: @unchecked Sendable {
  private let strong: Locked<Object>
  @usableFromInline let borrowed: UnsafeMutablePointer<Unmanaged<Object>>

  package init(_ object: Object) {
    strong = Locked(object)
    borrowed = .allocate(capacity: 1)
    borrowed.initialize(to: .passUnretained(object))
  }

  deinit { borrowed.deallocate() }

  /// The object as it is now; any thread may ask at any time, and keep it.
  package var current: Object { strong.withLock { $0 } }

  /// Runs `body` with the object. The caller makes sure that nobody replaces it meanwhile.
  @inlinable
  package func use<Result>(_ body: (Object) -> Result) -> Result {
    borrowed.pointee._withUnsafeGuaranteedRef(body)
  }

  /// Puts another object in its place. The caller makes sure that nobody is inside of ``use(_:)``.
  package func replace(with object: Object) {
    borrowed.pointee = .passUnretained(object)
    strong.withLock { $0 = object }
  }
}

/// Files by number, used without counting references: an array of files would count each one in and
/// out for every request.
package final class FileTable: Sendable {
  private let files: [Int: ImageFile]
  private let borrowed: [Borrowed<ImageFile>?]

  package init(_ files: [Int: ImageFile]) {
    self.files = files
    borrowed = (0...(files.keys.max() ?? 0)).map { number in files[number].map(Borrowed.init) }
  }

  /// ``ImageFile/readNow(into:at:)`` of the file with this number; false when there is none.
  package func readNow(_ number: Int, into region: ByteRegion, at offset: UInt64) -> Bool {
    guard number < borrowed.count, let file = borrowed[number] else { return false }
    return file.use { $0.readNow(into: region, at: offset) }
  }

  /// ``ImageFile/lendNow(_:at:)`` of the file with this number; nil when there is none.
  package func lendNow(_ number: Int, _ count: Int, at offset: UInt64) -> FilePiece? {
    guard number < borrowed.count, let file = borrowed[number] else { return nil }
    return file.use { $0.lendNow(count, at: offset) }
  }
}
