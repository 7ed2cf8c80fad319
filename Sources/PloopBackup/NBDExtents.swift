internal import CNBD
internal import PloopIO

/// What a server says about where there is anything, as libnbd hands it out: it is a C library, and here,
/// nowhere else, its raw pointers become values.
final class NBDExtents: Sendable {
  /// NBD protocol, "Metadata contexts", `base:allocation`: reads as zero.
  private static let zeroFlag: UInt32 = 2

  private let found = Locked<[ExportExtent]>([])

  var extents: [ExportExtent] { found.withLock { $0 } }

  /// Keeps this object until the library has no use for it any more.
  var callback: nbd_extent_callback {
    nbd_extent_callback(
      callback: { context, _, _, entries, count, _ in
        guard let context, let entries else { return -1 }
        let extents = Unmanaged<NBDExtents>.fromOpaque(context).takeUnretainedValue()
        extents.found.withLock { found in
          for pair in 0..<count / 2 {
            found.append(
              ExportExtent(
                length: UInt64(entries[2 * pair]),
                isZero: entries[2 * pair + 1] & NBDExtents.zeroFlag != 0))
          }
        }
        return 0
      },
      user_data: Unmanaged.passRetained(self).toOpaque(),
      free: { context in
        guard let context else { return }
        Unmanaged<NBDExtents>.fromOpaque(context).release()
      })
  }
}
