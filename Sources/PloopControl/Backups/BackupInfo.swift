package import PloopFormat

/// A point of a backup as it is shown.
package struct BackupInfo: Sendable {
  package enum State: String, Sendable {
    case complete, partial, damaged
    case missingParent = "missing_parent"
  }

  package var id: String
  package var target: String
  package var device: String
  package var chain: String
  package var state = State.damaged
  /// Why it is in a state in which it is not used, in words.
  package var problem: String?
  /// Whether it can be attached and restored; a cluster that is damaged is found when it is read.
  package var isWhole = false
  /// What its manifest says, where there is one that can be read: full or incremental.
  package var mode: String?
  package var parent: String?
  /// Seconds since 1970, as all times here.
  package var pointInTime: Double?
  package var completedAt: Double?
  /// Points of its chain up to this one; 0 for one that is in no chain.
  package var chainLength: Int
  /// Bytes of its files on the disk.
  package var diskBytes: UInt64
  /// Of its clusters.
  package var storedBytes: UInt64?
  /// What is looked at to verify it.
  package var checkedBytes: UInt64?
  /// Of the disk.
  package var sizeBytes: UInt64?
  package var clusterBytes: UInt64?
  /// The SHA-256 of the file with the checksums of its clusters.
  package var journalDigest: String?
  package var snapshot: String?
  package var checkpoint: String?
  /// When all of its bytes were looked at last.
  package var verifiedAt: Double?
  /// The descriptor by which a whole one is attached for reading, and its name there: nil for the newest
  /// one, which is the top.
  package var descriptor: String?
  package var place: GUID?

  package init(
    id: String, target: String, device: String, chain: String, chainLength: Int, diskBytes: UInt64
  ) {
    self.id = id
    self.target = target
    self.device = device
    self.chain = chain
    self.chainLength = chainLength
    self.diskBytes = diskBytes
  }
}
