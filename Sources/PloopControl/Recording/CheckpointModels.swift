internal import PloopDevice

// What is asked and answered about checkpoints.

package struct CheckpointRequest: Sendable, Equatable {
  package var name: String
  /// Bytes that one bit stands for; a cluster when nil.
  package var granularityBytes: UInt64?

  package init(name: String, granularityBytes: UInt64? = nil) {
    self.name = name
    self.granularityBytes = granularityBytes
  }
}

package struct CheckpointInfo: Sendable, Equatable {
  package var device: String
  package var name: String
  package var granularityBytes: UInt64
  /// All of the disk for one that says nothing.
  package var dirtyBytes: UInt64
  /// Whether what is written now is added.
  package var isRecording: Bool
  /// Why it says nothing, if it does not.
  package var inconsistency: String?
  /// The newest that there was when it was made.
  package var parent: String?
  /// Push backups and jobs that need it, by their names.
  package var usedBy: [String]
  /// Seconds since 1970.
  package var createdAt: Double
  /// For how long requests had to wait when it was made; nil but then.
  package var pauseNanoseconds: UInt64?
  /// Of the device.
  package var revision: UInt64
}

/// What may have been written since a checkpoint.
package struct CheckpointBits: Sendable {
  package var granularityBytes: UInt64
  package var inconsistency: String?
  /// Runs of bytes that may have been written, in order.
  package var extents: [Range<UInt64>]
  /// Bit i is bit i % 8 of byte i / 8.
  package var bytes: [UInt8]
}
