internal import PloopFormat

/// One thing that is wrong with a chain: what, and where.
package struct CheckFault: Sendable, Equatable {
  /// Never changes its meaning.
  package var code: String
  package var detail: String
  /// Logical, or a slot for what lies behind the disk's end.
  package var cluster: UInt64?
  /// What the index has for it.
  package var entry: UInt32?
  /// Where in the file it shows.
  package var offset: UInt64?

  init(
    _ code: String, _ detail: String, cluster: UInt64? = nil, entry: UInt32? = nil,
    offset: UInt64? = nil
  ) {
    self.code = code
    self.detail = detail
    self.cluster = cluster
    self.entry = entry
    self.offset = offset
  }
}

extension ChainCheck.Level {
  /// In the order of the file; of wrong entries the first ones.
  package var faults: [CheckFault] {
    switch self {
    case .raw: []
    case .unusable(let error): [CheckFault(error.code.rawValue, error.detail, offset: 0)]
    case .image(let check): check.allFaults
    }
  }

  /// How many there are altogether.
  package var faultCount: UInt64 {
    guard case .image(let check) = self else { return UInt64(faults.count) }
    return check.faultCount + UInt64(check.otherFaults.count)
  }
}

extension ImageCheck {
  fileprivate var allFaults: [CheckFault] {
    faults.map { fault in
      let what = fault.kind == .beyondDisk ? "slot" : "cluster"
      return CheckFault(
        fault.kind.rawValue,
        "\(what) \(fault.cluster) has entry \(fault.entry), at byte \(fault.offset)",
        cluster: fault.cluster, entry: fault.entry, offset: fault.offset)
    } + otherFaults
  }

  /// What is wrong besides entries that must not be followed.
  fileprivate var otherFaults: [CheckFault] {
    var found = differences.map { difference in
      CheckFault(
        "entry-differs",
        "cluster \(difference.cluster) has entry \(difference.entry) in the file, and "
          + "\(difference.expected) was written: somebody else writes the image",
        cluster: difference.cluster, entry: difference.entry,
        offset: IndexFault.offset(of: difference.cluster))
    }
    if isUnclean {
      found.append(
        CheckFault(
          FormatError.Code.unclean.rawValue, "whoever wrote it last did not close it",
          offset: UInt64(Header.inUseOffset)))
    }
    if case .damaged(let fault) = formatExtension {
      found.append(
        CheckFault(
          "extension-damaged", fault.detail,
          offset: header.extensionSector.multipliedReportingOverflow(by: Geometry.sectorBytes)
            .partialValue))
    }
    if tailBytes > 0 {
      found.append(
        CheckFault(
          "tail", "\(tailBytes) bytes at the end that nothing references",
          offset: fileBytes - tailBytes))
    }
    return found
  }
}
