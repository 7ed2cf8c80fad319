internal import PloopIO

/// Something that has to hear of every change of what a disk reads as: a bitmap of what was written, or
/// a backup that is to have the old bytes first.
///
/// A request that changes the disk asks before it writes a byte (``mayOverwrite(_:)``), waits outside
/// the gate if it may not (``willOverwrite(_:)``), and has its range marked before it is answered
/// (``mark(_:)``). That holds for writes in place, first touches, copy-on-write, trims, zeroes and the
/// pieces of streamed writes alike. Merging moves bytes and changes none, so it asks nobody.
///
/// Ranges are bytes of the disk, as requests have them: aligned to nothing, never empty.
package protocol Recorder: AnyObject, Sendable {
  /// Whether the range may be changed now. Asked inside the gate; it never waits.
  func mayOverwrite(_ range: Range<UInt64>) -> Bool

  /// Makes way for a change that may not be made yet, or waits until somebody does. Called outside
  /// the gate and with no lock; afterwards the request enters the gate and asks again.
  ///
  /// - Throws: why the change cannot be made; its request fails so.
  func willOverwrite(_ range: Range<UInt64>) throws(DeviceError)

  /// The range has been changed, or an attempt to change it has failed somewhere. Called inside the
  /// gate, after the bytes are where reads find them and before anybody is told so.
  func mark(_ range: Range<UInt64>)
}

/// Who hears of a disk's changes. It is replaced as a whole while the gate is closed, so that a request
/// of a disk that nobody records pays one load and one branch.
final class RecorderList: Sendable {
  let recorders: [any Recorder]
  let isEmpty: Bool

  init(_ recorders: [any Recorder] = []) {
    self.recorders = recorders
    isEmpty = recorders.isEmpty
  }

  /// The first that does not admit a change yet.
  func obstacle(to range: Range<UInt64>) -> (any Recorder)? {
    recorders.first { !$0.mayOverwrite(range) }
  }

  func mark(_ range: Range<UInt64>) {
    for recorder in recorders { recorder.mark(range) }
  }
}
