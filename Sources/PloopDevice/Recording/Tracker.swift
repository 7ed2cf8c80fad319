internal import PloopFormat
package import PloopIO

/// Notes which clusters of a disk have been written, for somebody who copies it while it is used: each
/// is handed out once, and again when it has been written again.
///
/// A cluster is marked before the request that changes it is answered, and after its bytes can be read.
/// So a copy that reads a cluster *after* it was handed out misses nothing: what comes later marks it
/// again. With the disk suspended, what is handed out last makes the copy complete.
package final class Tracker: Sendable {
  /// What clusters are counted.
  package enum Space: String, Sendable {
    /// Those of the top's file, its index included, as the kernel's driver does: what they make, the
    /// last of them read while the disk is suspended, is a copy of the image.
    case image
    /// Those of the disk, whatever delta they lie in.
    case virtual
  }

  package let space: Space
  package let clusterBytes: UInt64
  /// Seconds since 1970.
  package let startedAt: Double
  package let marks: MarkSet
  /// Nanoseconds for which requests had to wait at the beginning.
  package let pauseNanoseconds: UInt64
  private let device: Device
  private let file: ImageFile
  private let recorder: Marker?

  /// Begins to track: the file's clusters that are in use are marked from the beginning, of the disk's
  /// none is.
  ///
  /// - Parameter whenMarked: called when something is there to be handed out after nothing was.
  /// - Throws: `.readOnly` for a disk that cannot be written; `.timeout`, with nothing begun.
  package init(
    _ space: Space, of device: Device, until deadline: Deadline,
    whenMarked: @escaping @Sendable () -> Void
  ) throws(DeviceError) {
    guard let writing = device.chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    self.space = space
    self.device = device
    file = writing.file
    startedAt = wallClockSeconds()
    clusterBytes = device.geometry.clusterBytes
    let shift = UInt64(device.geometry.clusterShift)
    switch space {
    case .virtual:
      let marks = MarkSet(
        Bitmap(count: Int(device.geometry.clusterCount)), whenMarked: whenMarked)
      let recorder = Marker(marks, shift)
      self.marks = marks
      self.recorder = recorder
      pauseNanoseconds = try device.beginRecording(recorder, until: deadline)
    case .image:
      var begun: MarkSet?
      let file = writing.file
      pauseNanoseconds = try device.whileClosed(until: deadline) { () throws(DeviceError) in
        let marks = MarkSet(writing.allocator.usedClusters, whenMarked: whenMarked)
        begun = marks
        // Flush rounds and punched holes are outside of the gate. What they do before this they do
        // to clusters that are marked from the beginning.
        file.watchChanges { range in
          marks.mark(Int(range.lowerBound >> shift)...Int((range.upperBound - 1) >> shift))
        }
      }
      marks = begun ?? MarkSet(Bitmap(count: 0))
      recorder = nil
    }
  }

  /// Tracks no more.
  ///
  /// - Throws: `.timeout`, and it goes on tracking.
  package func end(until deadline: Deadline) throws(DeviceError) {
    if let recorder {
      _ = try device.endRecording(recorder, until: deadline)
    } else {
      file.watchChanges(nil)
    }
  }

  /// Marks clusters of the disk; it is in nobody's way.
  private final class Marker: Recorder {
    private let marks: MarkSet
    private let shift: UInt64

    init(_ marks: MarkSet, _ shift: UInt64) {
      self.marks = marks
      self.shift = shift
    }

    func mayOverwrite(_ range: Range<UInt64>) -> Bool { true }

    func willOverwrite(_ range: Range<UInt64>) throws(DeviceError) {}

    func mark(_ range: Range<UInt64>) {
      guard !range.isEmpty else { return }
      marks.mark(Int(range.lowerBound >> shift)...Int((range.upperBound - 1) >> shift))
    }
  }
}
