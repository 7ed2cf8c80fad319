package import PloopFormat
package import PloopIO

/// Why something could not be done to a disk.
package struct DeviceError: Error, Sendable, CustomStringConvertible {
  package enum Kind: Sendable {
    /// An image is not what it should be; its code is the problem's slug. Level 0 is the oldest.
    case format(FormatError, level: Int)
    /// A descriptor is not what it should be, or what was asked for does not fit it.
    case descriptor(DescriptorError)
    /// QEMU, OpenVZ's tools or another ploopd have the image open.
    case locked
    case sameFileTwice
    case tooManyDeltas
    case rawNotBase
    case readOnly
    /// There is no delta with another above it where one was asked for.
    case nothingToMerge
    /// What was asked for a delta of the chain is not possible. `entry` is the place in a list that
    /// was given, if one is wrong there.
    case refused(Refusal, entry: Int? = nil)
    /// A disk cannot become smaller.
    case shrinks
    /// A disk cannot have the size that was asked for.
    case size(NewDiskFault)
    case io(IOError)
    case outOfSpace
    /// The file can hold no more clusters, however much room there is: no entry of its version names
    /// what comes next, or no file of its file system is larger.
    case imageFull
    /// A sync failed before, and what was written since the last good one is unknown.
    case degraded
    /// Requests in flight did not end in time; nothing was changed.
    case timeout
    case detached
    /// A fast way to zero was asked for, and there is none.
    case slow
    case checkpoint(CheckpointProblem)
    /// A cluster of a delta that nobody writes is not what it was when the delta was hashed.
    case rotten(cluster: UInt64)
    /// A plan that was given is not that of the image as it is now.
    case otherPlan
  }

  package enum CheckpointProblem: Sendable {
    case exists, missing
    /// Too many, too fine, or of a disk that is too large.
    case unsupported
    /// The bitmaps could not be kept, and the disk goes on without them.
    case failed
  }

  /// Why a chain is not changed by hand. The raw values are the problems' slugs.
  package enum Refusal: String, Sendable {
    /// Requests have been served since the attach, and the disk is not suspended.
    case running = "device-running"
    case noSuchDelta = "delta-not-found"
    case isTop = "delta-is-top"
    /// The neighbour on that side cannot have received anything.
    case wrongDirection = "merge-direction-invalid"
    /// A cluster that the disk or the file does not have.
    case outOfRange = "cluster-out-of-range"
    /// A cluster that no delta maps.
    case notMapped = "cluster-not-mapped"
    case invalid = "invalid-value"
    /// The index in a file is not what it was said to be.
    case mismatch = "index-mismatch"
    case rawNotAllowed = "raw-not-allowed"
    case notIdentical = "image-not-identical"
    case nothingBelow = "nothing-below-top"
    /// A delta that is to be above has clusters which the disk reads from another one.
    case overlap = "flip-overlap"
    /// Whoever keeps the chain could not write the change down, and says why itself.
    case unrecorded = "io-error"
  }

  package let kind: Kind
  package let detail: String

  package init(_ kind: Kind, _ detail: String) {
    self.kind = kind
    self.detail = detail
  }

  package init(_ error: FormatError, level: Int, path: String) {
    self.init(.format(error, level: level), "\(path): \(error.detail)")
  }

  package init(_ error: DescriptorError, path: String) {
    self.init(.descriptor(error), "\(path): \(error.detail)")
  }

  package init(_ error: IOError) {
    let kind: Kind =
      error.isOutOfSpace ? .outOfSpace : error.isTooLarge ? .imageFull : .io(error)
    self.init(kind, error.description)
  }

  package init(_ error: LockError) {
    switch error {
    case .held(let path): self.init(.locked, "\(path) is in use by another process")
    case .failed(let error): self.init(error)
    }
  }

  package var description: String { detail }

  /// Nothing is wrong but that there is no place for more.
  var lacksRoom: Bool {
    switch kind {
    case .outOfSpace, .imageFull: true
    default: false
    }
  }
}

/// Runs an I/O call and converts its error: the border between PloopIO and this target.
@inline(__always)
func converting<Result>(_ body: () throws(IOError) -> Result) throws(DeviceError) -> Result {
  do { return try body() } catch { throw DeviceError(error) }
}
