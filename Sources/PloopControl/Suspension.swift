/// By whom a disk is suspended, since when and for how long.
package struct Suspension: Codable, Sendable, Equatable {
  /// How long a disk stays suspended where nobody says so.
  package static let defaultSeconds: UInt64 = 300
  package static let mostSeconds: UInt64 = 86_400
  /// When those who look after the service are told.
  static let tellSeconds: Double = 60

  /// Who did it, as the kernel knows them.
  package var holder: String
  /// Seconds since 1970.
  package var since: Double
  /// The same: when it is resumed by itself, unless that is prohibited; nil for one that has no limit.
  package var until: Double?
  /// Whether it has lasted so long that it was told.
  package var isTold = false

  package init(holder: String, since: Double, until: Double? = nil) {
    self.holder = holder
    self.since = since
    self.until = until
  }

  /// Whether neither time nor holder has changed since.
  func isStill(_ other: Suspension) -> Bool {
    holder == other.holder && since == other.since && until == other.until
  }
}

/// Who wants nobody to resume a disk, and since when.
package struct Prohibition: Codable, Sendable, Equatable {
  package var holder: String
  /// Seconds since 1970.
  package var since: Double

  package init(holder: String, since: Double) {
    self.holder = holder
    self.since = since
  }
}
