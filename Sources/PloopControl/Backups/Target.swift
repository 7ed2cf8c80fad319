/// Where a target's backups lie.
package enum TargetPlace: Codable, Sendable, Equatable {
  package enum Kind: String, Sendable {
    case directory, file, nbd
  }

  package enum FileFormat: String, Codable, Sendable {
    case raw
    case ploop = "ploop1"
  }

  /// A folder, `root:relative`, with a chain of points for each full backup (``BackupChain``).
  case directory(path: String)
  /// One file, `root:relative`, that holds a whole disk and nothing older.
  case file(path: String, format: FileFormat)
  /// What an NBD server exports, written over from beginning to end.
  case nbd(uri: String)

  package var kind: Kind {
    switch self {
    case .directory: .directory
    case .file: .file
    case .nbd: .nbd
    }
  }
}

/// How an NBD server is trusted that is spoken to with TLS.
package struct TargetTLS: Codable, Sendable, Equatable {
  /// A folder, `root:relative`, with `ca-cert.pem` and, where the server asks for them, `client-cert.pem` and
  /// `client-key.pem`; nil for the authorities of the system.
  package var certificates: String?
  /// Whether the server has to have the name of the address.
  package var verify = true

  package init(certificates: String?, verify: Bool = true) {
    self.certificates = certificates
    self.verify = verify
  }
}

/// Where backups are kept, under a name: what is written down of it.
package struct Target: Codable, Sendable, Equatable {
  package static let slotsDefault = 2

  /// As ``Names`` allows.
  package var name: String
  package var place: TargetPlace
  /// Jobs that work with it at the same time.
  package var slots = Target.slotsDefault
  /// For all of those jobs together.
  package var limits = JobLimits()
  /// Seconds since 1970.
  package var createdAt: Double
  package var revision: UInt64 = 0
  /// Of its folder, made or found when it became a target (``TargetMark``); nil where there is none.
  var mark: String?
  /// Nil for what is no NBD server, or trusted as the system trusts.
  package var tls: TargetTLS?

  /// A place that holds one backup has one job at a time, whatever its slots are: another one would take it
  /// over between two steps.
  var jobsAtOnce: Int {
    switch place.kind {
    case .directory: slots
    case .file, .nbd: 1
    }
  }

  package init(name: String, place: TargetPlace, createdAt: Double) {
    self.name = name
    self.place = place
    self.createdAt = createdAt
  }
}

/// The body of a request for a target.
package struct TargetRequest: Sendable {
  package var name: String
  package var place: TargetPlace
  package var slots = Target.slotsDefault
  package var limits = JobLimits()
  package var tls: TargetTLS?

  package init(name: String, place: TargetPlace) {
    self.name = name
    self.place = place
  }
}

/// What PATCH may change of a target; nil leaves it as it is.
package struct TargetChange: Sendable {
  package var slots: Int?
  package var limits = JobLimitsChange()

  package init() {}
}

/// A target as it is shown.
package struct TargetInfo: Sendable {
  package struct Usage: Sendable, Equatable {
    /// Bytes of all its files on the disk.
    package var bytes: UInt64 = 0
    /// Whole ones and others.
    package var backups = 0
  }

  package var target: Target
  package var conditions: [DeviceInfo.Condition]
  /// Nil where it cannot be looked at.
  package var usage: Usage?
}
