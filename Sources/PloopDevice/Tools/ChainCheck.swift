package import PloopFormat
internal import PloopIO

/// What was found in a chain as a whole: in each of its images, and whether they are a chain.
package struct ChainCheck: Sendable {
  package enum Level: Sendable {
    case image(ImageCheck)
    /// A raw base, of which nothing but its size can be said.
    case raw(fileBytes: UInt64, diskBytes: UInt64)
    /// A file whose header does not describe it; nothing else of it can be believed.
    case unusable(FormatError)

    package var verdict: ImageCheck.Verdict {
      switch self {
      case .image(let check): check.verdict
      case .raw: .clean
      case .unusable: .corrupt
      }
    }
  }

  /// Oldest first, like the sources.
  package let levels: [Level]
  /// Why the images cannot be one chain, and at which level that shows.
  package let mismatch: (level: Int, error: FormatError)?

  package var verdict: ImageCheck.Verdict {
    mismatch == nil ? levels.map(\.verdict).max() ?? .clean : .corrupt
  }

  /// What forced repair would do; nil where nothing is to be done, or nothing can be.
  package let repairPlan: RepairPlan?

  init(
    levels: [Level], mismatch: (level: Int, error: FormatError)?, repairPlan: RepairPlan? = nil
  ) {
    self.levels = levels
    self.mismatch = mismatch
    self.repairPlan = repairPlan
  }

  /// - Parameter sources: oldest first, opened for reading; their locks are given back.
  /// - Throws: as ``CheckRun``.
  package init(_ sources: [DeltaSource]) throws(DeviceError) {
    let run = try CheckRun(of: sources)
    while try run.step() != nil {}
    self = try run.result()
  }
}

extension ChainOpener {
  /// A chain of which nothing will be changed; one that was not closed may be looked at.
  static func forLooking(at sources: [DeltaSource]) -> ChainOpener {
    var options = AttachOptions()
    options.readonly = true
    options.repairSafely = true
    return ChainOpener(sources: sources, options: options)
  }

  /// Takes QEMU's locks for reading; they go with the files.
  static func lockForReading(_ sources: [DeltaSource]) throws(DeviceError) {
    for source in sources {
      do throws(LockError) { try ImageLock.acquire(source.file, for: .read) } catch {
        throw DeviceError(error)
      }
    }
  }
}
