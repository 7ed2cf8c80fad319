/// What is wrong with an image, by a code that never changes its meaning, and in words.
package struct FormatError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The raw values are the slugs of the problem catalogue.
  package enum Code: String, Sendable, CaseIterable {
    /// Neither of the two signatures at byte 0.
    case signatureUnknown = "image-signature-unknown"
    /// `m_Type` is not 2.
    case typeUnsupported = "image-type-unsupported"
    /// Not a power of two from 4 KiB to 64 MiB.
    case clusterSizeInvalid = "image-cluster-size-invalid"
    /// The disk has no sectors, or more than the version can say.
    case sizeInvalid = "image-size-invalid"
    /// Fewer index entries than the disk has clusters.
    case indexTooShort = "image-index-too-short"
    /// The index ends beyond what entries of 32 bits can point behind.
    case indexTooLong = "image-index-too-long"
    /// `m_FirstBlockOffset` is not the first cluster behind the index.
    case firstBlockInvalid = "image-first-block-invalid"
    /// The file ends before its header and index do.
    case truncated = "image-truncated"
    /// A conversion between versions was interrupted; the index may be in either unit.
    case conversionInterrupted = "image-conversion-interrupted"
    /// The in-use mark is set: somebody did not close the image.
    case unclean = "image-unclean"
    /// An index entry that no writer of the format makes: ``FormatError/fault`` says which.
    case corrupt = "image-corrupt"
    /// Slots behind the disk's last cluster are set; growing the disk would make them data.
    case indexTailSet = "image-index-tail-set"
    /// A raw base whose length is not a whole number of clusters.
    case rawSizeMisaligned = "image-raw-size-misaligned"
    /// A delta whose version, cluster size or size does not fit the delta above it.
    case geometryMismatch = "geometry-mismatch"
  }

  package let code: Code
  package let detail: String
  /// For ``Code/corrupt``: what is wrong with which entry.
  package let fault: IndexFault?

  package init(_ code: Code, _ detail: String, fault: IndexFault? = nil) {
    self.code = code
    self.detail = detail
    self.fault = fault
  }

  package var description: String { "\(code.rawValue): \(detail)" }
}

/// An index entry that must not be followed.
package struct IndexFault: Error, Sendable, Equatable {
  package enum Kind: String, Sendable, CaseIterable {
    /// Another logical cluster names the same place.
    case duplicate = "duplicate-entry"
    /// The cluster ends beyond the end of the file.
    case outsideFile = "entry-outside-file"
    /// The cluster lies in the header or the index.
    case insideHeader = "entry-inside-header"
    /// A version 1 entry that is not a whole number of clusters.
    case unaligned = "entry-unaligned"
    /// 0xFFFFFFFF, which the format reserves.
    case reserved = "entry-reserved"
    /// A slot behind the disk's last cluster is set (repairable: it names nothing).
    case beyondDisk = "entry-beyond-disk"
  }

  package let kind: Kind
  /// Logical cluster, or slot number for ``Kind/beyondDisk``.
  package let cluster: UInt64
  package let entry: UInt32

  package init(_ kind: Kind, cluster: UInt64, entry: UInt32) {
    self.kind = kind
    self.cluster = cluster
    self.entry = entry
  }
}
