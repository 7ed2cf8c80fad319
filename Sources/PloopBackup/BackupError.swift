internal import PloopDevice
internal import PloopFormat
package import PloopIO

/// Why something could not be done to a backup.
package struct BackupError: Error, Sendable, CustomStringConvertible {
  package enum Kind: Sendable, Equatable {
    /// The disk that is copied could not be read.
    case source
    /// What is copied is not what it was when its delta was hashed: a cluster of the disk.
    case rotten(cluster: UInt64)
    /// A system call on the target failed.
    case target(code: Int32)
    /// The target has no room.
    case outOfSpace
    /// Somebody else writes this, or has it open.
    case locked
    /// Something is where a new file is to be.
    case exists
    case notFound
    /// What is asked for does not fit what is there: another size, another parent, other clusters.
    case mismatch
    /// A backup is not what was stored. The clusters that are wrong, where it is a matter of some.
    case corrupt(clusters: [UInt64])
    /// Later points of the chain build on it.
    case hasDependents([String])
    /// A chain has no room for another point; a full backup begins a new one.
    case chainIsFull
    /// An earlier call failed, and what was written since the last commit is unknown. Open it anew.
    case failed
  }

  package let kind: Kind
  package let detail: String

  package init(_ kind: Kind, _ detail: String) {
    self.kind = kind
    self.detail = detail
  }

  package init(_ error: IOError) {
    self.init(error.isOutOfSpace ? .outOfSpace : .target(code: error.code), error.description)
  }

  /// What a file of the target is not.
  init(target error: DeviceError) {
    switch error.kind {
    case .io(let cause): self.init(cause)
    case .outOfSpace: self.init(.outOfSpace, error.detail)
    case .locked: self.init(.locked, error.detail)
    default: self.init(.corrupt(clusters: []), error.detail)
    }
  }

  init(source error: DeviceError) {
    guard case .rotten(let cluster) = error.kind else {
      self.init(.source, error.detail)
      return
    }
    self.init(.rotten(cluster: cluster), error.detail)
  }

  init(source refusal: PushBackup.Refusal) {
    guard case .rotten(let cluster, let detail) = refusal else {
      self.init(.source, refusal.words)
      return
    }
    self.init(.rotten(cluster: cluster), detail)
  }

  init(_ error: LockError) {
    switch error {
    case .held(let path): self.init(.locked, "\(path) is in use")
    case .failed(let cause): self.init(cause)
    }
  }

  init(_ error: DescriptorError, _ path: String) {
    self.init(
      error.code == .tooManyShots ? .chainIsFull : .corrupt(clusters: []),
      "\(path): \(error.detail)")
  }

  package var description: String { detail }
}

/// Runs a call on files of a target and converts its error.
func onTarget<Result>(_ body: () throws(IOError) -> Result) throws(BackupError) -> Result {
  do { return try body() } catch { throw BackupError(error) }
}

/// The same for calls of PloopDevice.
func onImages<Result>(_ body: () throws(DeviceError) -> Result) throws(BackupError) -> Result {
  do { return try body() } catch { throw BackupError(target: error) }
}
