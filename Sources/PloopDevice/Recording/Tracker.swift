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
  private let writing: Writing
  private var file: ImageFile { writing.file }
  private let recorder: Marker?

  /// Begins to track: the file's clusters that are in use are marked from the beginning, of the disk's
  /// none is.
  ///
  /// - Parameters:
  ///   - shift: of the disk's own clusters, what is counted instead: parts, or several, of so many bytes as a
  ///     power of two.
  ///   - whenMarked: called when something is there to be handed out after nothing was.
  /// - Throws: `.readOnly` for a disk that cannot be written; `.timeout`, with nothing begun.
  package init(
    _ space: Space, of device: Device, by shift: Int? = nil, until deadline: Deadline,
    whenMarked: @escaping @Sendable () -> Void = {}
  ) throws(DeviceError) {
    guard let writing = device.chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    // What the image has that nobody writes is known behind the check of its index only.
    try device.requireChecked(until: deadline)
    self.space = space
    self.device = device
    self.writing = writing
    startedAt = wallClockSeconds()
    let shift = UInt64((space == .image ? nil : shift) ?? device.geometry.clusterShift)
    clusterBytes = 1 << shift
    switch space {
    case .virtual:
      let count = (device.geometry.sizeBytes + clusterBytes - 1) >> shift
      let marks = MarkSet(Bitmap(count: Int(count)), whenMarked: whenMarked)
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

  // MARK: The top's file

  /// Its clusters that something references, as they are now.
  package var usedClusters: Bitmap { writing.allocator.usedClusters }

  /// Reads it as it is, suspended or not; what it does not have is zeroed.
  package func readImage(into region: ByteRegion, at offset: UInt64) throws(DeviceError) {
    try converting { () throws(IOError) in try file.readOrZero(into: region, at: offset) }
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
