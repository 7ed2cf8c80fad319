internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What lies beneath the roots, and whose it is.

/// What was found when the roots were looked at last.
struct KnownImages: Sendable {
  var images: [ImageInfo]
  var problems: [String]
  /// Nanoseconds of the monotonic clock.
  var lookedAt: UInt64
  /// Seconds since 1970.
  var at: Double

  var diskBytes: [String: UInt64] {
    images.reduce(into: [:]) { $0[$1.usage, default: 0] &+= $1.diskBytes }
  }
}

extension KnownImages {
  fileprivate func orphanBytes(beneath root: String) -> UInt64 {
    images.reduce(0) {
      $1.state == .orphaned && $1.path.hasPrefix("\(root):") ? $0 &+ $1.diskBytes : $0
    }
  }
}

extension Service {
  /// Pages of one listing, and metrics, are of one look for so long.
  static let imagesFreshNanoseconds: UInt64 = 60_000_000_000

  /// Every image and descriptor beneath the roots, in the order of their paths.
  ///
  /// - Parameter after: the path of the last one of the part before.
  package func images(
    root: String?, state wanted: ImageInfo.State?, after: String?, limit: Int
  ) async throws(ServiceError) -> ImageListing {
    if let root, !roots.names.contains(root) {
      throw ServiceError(
        .valueImpossible, "there is no root \(root.prefix(80))",
        remedy: "the roots are: \(roots.names.joined(separator: ", "))")
    }
    let revision = store.shownRevision
    let known = await rootsClerk.look { self.knownImages(fresh: after == nil) }
    let found = known.images.filter { image in
      (root.map { image.path.hasPrefix("\($0):") } ?? true)
        && (wanted.map { image.state == $0 } ?? true) && (after.map { image.path > $0 } ?? true)
    }
    let items = Array(found.prefix(limit))
    return ImageListing(
      page: Page(
        items: items, next: found.count > limit ? items.last?.path : nil,
        revision: revision),
      diskBytes: known.diskBytes, problems: known.problems)
  }

  /// - Parameter fresh: whether the roots are looked at in any case.
  private func knownImages(fresh: Bool) -> KnownImages {
    if !fresh, let known = knownImages.withLock({ $0 }),
      monotonicNanoseconds() - known.lookedAt < Service.imagesFreshNanoseconds
    {
      return known
    }
    let scan = ImageScan(roots)
    let users = ImageUsers(scan, of: self)
    let known = KnownImages(
      images: scan.files.map(users.judged), problems: scan.problems,
      lookedAt: monotonicNanoseconds(), at: wallClockSeconds())
    knownImages.withLock { $0 = known }
    return known
  }

  // MARK: Metrics

  /// As of the last look, since whoever collects metrics does not wait for it; another one is begun when
  /// that was some time ago.
  func imageMetrics() -> [Metric] {
    let known = knownImages.withLock { $0 }
    let isOld =
      known.map { monotonicNanoseconds() - $0.lookedAt >= Service.imagesFreshNanoseconds } ?? true
    if isOld,
      isLookingAtImages.withLock({ isLooking in
        defer { isLooking = true }
        return !isLooking
      })
    {
      Task { [rootsClerk] in
        await rootsClerk.look { _ = self.knownImages(fresh: true) }
        self.isLookingAtImages.withLock { $0 = false }
      }
    }
    guard let known else { return [] }
    let bytes = known.diskBytes
    return [
      Metric(
        .gauge, "ploopd_images_disk_bytes",
        "What images beneath the roots take on their file systems, by who uses them.",
        ImageInfo.usages.map { .init(bytes[$0] ?? 0, [("usage", $0)]) }),
      Metric(
        .gauge, "ploopd_orphan_bytes", "What images beneath a root take that nobody needs.",
        roots.names.map { .init(known.orphanBytes(beneath: $0), [("root", $0)]) }),
      Metric(
        .gauge, "ploopd_images_looked_at_timestamp_seconds",
        "When the roots were looked at for this, in seconds since 1970.", known.at),
    ]
  }
}
