/// What BLOCK_STATUS can tell of a range, if the client selects it.
package enum Context: Hashable, Sendable {
  /// `base:allocation`.
  case allocation
  /// `qemu:allocation-depth`: 1 where the newest delta has the content, 2 for the next, 0 where none has.
  case depth
  /// `qemu:dirty-bitmap:NAME`: 1 where something may have been written.
  case dirtyBitmap(String)

  var name: [UInt8] {
    switch self {
    case .allocation: Array("base:allocation".utf8)
    case .depth: Array("qemu:allocation-depth".utf8)
    case .dirtyBitmap(let name): Context.dirtyBitmapPrefix + Array(name.utf8)
    }
  }

  private static let dirtyBitmapPrefix = Array("qemu:dirty-bitmap:".utf8)
  /// With which a client asks for all contexts of a kind.
  private static let wildcards = [Array("base:".utf8), Array("qemu:".utf8), dirtyBitmapPrefix]

  /// Whether a query means this one.
  ///
  /// - Parameter isSet: a selection; only whole names count then.
  func matches(_ query: [UInt8], isSet: Bool) -> Bool {
    query == name || !isSet && Context.wildcards.contains(query) && name.starts(with: query)
  }
}

/// A context that a client has selected, and the number that replies name it by.
struct SelectedContext: Sendable {
  let id: UInt32
  let context: Context
}

/// A run of bytes with the same status, as it is on the wire.
struct StatusRun: Sendable {
  let length: UInt64
  let flags: UInt32
}

extension Context {
  /// What a door says of a range.
  func runs<Door: Export>(
    of door: Door, offset: UInt64, length: UInt64, limit: Int
  ) throws(NBDError) -> [StatusRun] {
    switch self {
    case .allocation:
      try door.extents(offset: offset, length: length, limit: limit).map(Context.run)
    case .depth:
      try door.depths(offset: offset, length: length, limit: limit).map {
        StatusRun(length: $0.length, flags: UInt32(clamping: $0.depth))
      }
    case .dirtyBitmap(let name):
      try door.dirtyRuns(of: name, offset: offset, length: length, limit: limit).map {
        StatusRun(length: $0.length, flags: $0.isDirty ? 1 : 0)
      }
    }
  }

  static func run(_ extent: Extent) -> StatusRun {
    StatusRun(
      length: extent.length,
      flags: (extent.isHole ? Allocation.hole : 0) | (extent.readsZero ? Allocation.zero : 0))
  }
}
