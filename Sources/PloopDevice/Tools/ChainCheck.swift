package import PloopFormat
internal import PloopIO

/// Looks at a chain as a whole: each of its images, and whether they are a chain.
///
/// QEMU's locks are held as long as the files are open, so that what was seen stays true.
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

  /// - Parameter sources: oldest first, opened for reading.
  /// - Throws: `.locked` when somebody has one of them open for writing, `.io` when one cannot be
  ///   read, and what makes the list itself no chain: `.rawNotBase`, `.sameFileTwice`,
  ///   `.tooManyDeltas`.
  package init(_ sources: [DeltaSource]) throws(DeviceError) {
    let opener = ChainOpener.forLooking(at: sources)
    try opener.checkSources()
    try ChainOpener.lockForReading(sources)
    var levels: [Level] = []
    for source in sources { levels.append(try ChainCheck.look(at: source)) }
    self.levels = levels
    mismatch = try ChainCheck.mismatch(of: levels, opener)
  }

  private static func look(at source: DeltaSource) throws(DeviceError) -> Level {
    guard !source.isRaw else {
      return try converting { () throws(IOError) in
        .raw(fileBytes: try source.file.size(), diskBytes: try source.file.allocatedBytes())
      }
    }
    do {
      return .image(try ImageCheck(source.file))
    } catch {
      guard case .format(let format, _) = error.kind else { throw error }
      return .unusable(format)
    }
  }

  private static func mismatch(
    of levels: [Level], _ opener: ChainOpener
  ) throws(DeviceError) -> (level: Int, error: FormatError)? {
    // A header that is wrong by itself was found already, and there is nothing to compare it with.
    for case .unusable in levels { return nil }
    do {
      _ = try opener.readHeaders()
      return nil
    } catch {
      guard case .format(let format, let level) = error.kind else { throw error }
      return (level, format)
    }
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
