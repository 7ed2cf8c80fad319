extension ProblemCatalogue {
  /// Well-formed requests that ask for what cannot be, and images that cannot be used.
  static let values: [Entry] = [
    Entry(
      "value-impossible", 422, "A value that cannot be here",
      cause: """
        Each value is of the right kind, but one of them cannot be what it is here, or beside the \
        others; `detail` says which.
        """,
      remedy: "leave it out, or see what it goes with"),
    Entry(
      "cluster-out-of-range", 422, "No such cluster",
      cause: "The disk, or the delta's file, has no such cluster; clusters count from 0.",
      remedy: "see clusters.total of the device"),
    Entry(
      "checkpoint-unsupported", 422, "The disk cannot have this checkpoint",
      cause: "The disk has more than 64 TiB, or as many checkpoints as there may be.",
      remedy: "use a larger granularity, or DELETE old checkpoints"),
    Entry(
      "dependency-missing", 422, "A job to come after does not exist",
      cause: "`after` names a job that does not exist.",
      remedy: "see `after`"),
    Entry(
      "too-many-deltas", 422, "Too many deltas",
      cause: "More than 255 read-only deltas.",
      remedy: "merge some: 255 read-only ones are the most"),
    Entry(
      "descriptor-invalid", 422, "The descriptor cannot be used",
      cause: "The descriptor is no XML that one may have, or no tree of images.",
      remedy: "correct it, or attach `deltas`"),
    Entry(
      "image-invalid", 422, "The image cannot be used",
      cause: """
        `delta_path` is no empty image of the disk's geometry that nobody uses; `cause` says \
        what it is. It was not changed.
        """,
      remedy: "see `cause`"),
    Entry(
      "raw-not-allowed", 422, "A raw delta has no index",
      cause: "A raw delta has no index that could change.",
      remedy: "see the delta's format"),
    Entry(
      "delta-is-top", 422, "The delta is the top",
      cause: "The top is written by nobody but the service.",
      remedy: "name one below it"),
    Entry(
      "merge-direction-invalid", 422, "Not in that direction",
      cause: """
        That neighbour cannot receive, or is none: above the newest read-only delta is the top, \
        nothing is below the oldest, and raw ones and other branches receive nothing.
        """,
      remedy: "see the delta's level"),
    Entry(
      "cluster-not-mapped", 422, "No delta has the cluster",
      cause: "No delta has the cluster.",
      remedy: "leave it out"),
    Entry(
      "image-not-identical", 422, "The image holds something else",
      cause: "The file does not hold the same in the same places.",
      remedy: "copy the delta anew"),
    Entry(
      "raw-not-base", 422, "Raw above the base",
      cause: "A raw delta above the base, or a raw one alone.",
      remedy: "only the oldest delta can be raw"),
    Entry(
      "size-misaligned", 422, "The size is no whole number of clusters",
      cause: "The size is no whole number of clusters.",
      remedy: "use one of `nearest`"),
    Entry(
      "size-too-large", 422, "The disk is too large",
      cause: "The disk is too large for its clusters; see `limit_bytes`.",
      remedy: "use larger clusters"),
    Entry(
      "image-corrupt", 422, "The image is corrupt",
      cause: """
        An index entry cannot be followed; `level`, `cluster` and `fault` say which. Nothing was \
        changed.
        """,
      remedy: "look at it with: ploopd image check"),
    Entry(
      "idempotency-key-reused", 422, "The key belongs to another request",
      cause: "The key belongs to another request.",
      remedy: "use a new key for each request"),
    Entry(
      "geometry-mismatch", 422, "The image cannot be used",
      cause: "A delta's version, cluster size or disk size does not fit the one above.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-cluster-size-invalid", 422, "The image cannot be used",
      cause: "The cluster size is no power of two from 4 KiB to 64 MiB.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-conversion-interrupted", 422, "The image cannot be used",
      cause: "A conversion between versions was interrupted.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-first-block-invalid", 422, "The image cannot be used",
      cause: "The header puts the data where the index does not end.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-index-too-long", 422, "The image cannot be used",
      cause: "The index ends where no entry can point.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-index-too-short", 422, "The image cannot be used",
      cause: "The index has fewer entries than the disk has clusters.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-raw-size-misaligned", 422, "The image cannot be used",
      cause: "A raw base's length is no whole number of clusters.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-signature-unknown", 422, "The image cannot be used",
      cause: "The file does not begin as a ploop image does.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-size-invalid", 422, "The image cannot be used",
      cause: "The header's disk size cannot be.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-truncated", 422, "The image cannot be used",
      cause: "The file ends before its index does.",
      remedy: "look at it with: ploopd image check"),
    Entry(
      "image-type-unsupported", 422, "The image cannot be used",
      cause: "The header names another type of disk.",
      remedy: "look at it with: ploopd image check"),
  ]
}
