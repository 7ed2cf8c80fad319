/// How much may be read and written in each second; 0 is no limit.
package struct TransferRates: Codable, Sendable, Equatable {
  package static let defaultBurstSeconds: UInt64 = 1

  package var readBytes: UInt64
  package var writeBytes: UInt64
  package var readOperations: UInt64
  package var writeOperations: UInt64
  /// What these come to meanwhile may be had at once after a rest.
  package var burstSeconds: UInt64

  package init(
    readBytes: UInt64 = 0, writeBytes: UInt64 = 0, readOperations: UInt64 = 0,
    writeOperations: UInt64 = 0, burstSeconds: UInt64 = defaultBurstSeconds
  ) {
    self.readBytes = readBytes
    self.writeBytes = writeBytes
    self.readOperations = readOperations
    self.writeOperations = writeOperations
    self.burstSeconds = burstSeconds
  }

  /// Whether nothing is limited.
  package var isUnlimited: Bool {
    readBytes == 0 && writeBytes == 0 && readOperations == 0 && writeOperations == 0
  }
}

/// What is to be changed of rates: nil leaves one as it is, and nil within makes it what it is where nothing is said.
package struct TransferRatesChange: Sendable, Equatable {
  /// Everything is what it is where nothing is said.
  package static let reset = TransferRatesChange(
    readBytes: .some(nil), writeBytes: .some(nil), readOperations: .some(nil),
    writeOperations: .some(nil), burstSeconds: .some(nil))

  package var readBytes: UInt64??
  package var writeBytes: UInt64??
  package var readOperations: UInt64??
  package var writeOperations: UInt64??
  package var burstSeconds: UInt64??

  package init(
    readBytes: UInt64?? = nil, writeBytes: UInt64?? = nil, readOperations: UInt64?? = nil,
    writeOperations: UInt64?? = nil, burstSeconds: UInt64?? = nil
  ) {
    self.readBytes = readBytes
    self.writeBytes = writeBytes
    self.readOperations = readOperations
    self.writeOperations = writeOperations
    self.burstSeconds = burstSeconds
  }

  /// - Parameter rates: nil for no limits.
  /// - Returns: nil where nothing is limited any more.
  package func applied(to rates: TransferRates?) -> TransferRates? {
    var rates = rates ?? TransferRates()
    if let readBytes { rates.readBytes = readBytes ?? 0 }
    if let writeBytes { rates.writeBytes = writeBytes ?? 0 }
    if let readOperations { rates.readOperations = readOperations ?? 0 }
    if let writeOperations { rates.writeOperations = writeOperations ?? 0 }
    if let burstSeconds { rates.burstSeconds = burstSeconds ?? TransferRates.defaultBurstSeconds }
    return rates.isUnlimited ? nil : rates
  }
}
