/// How much may be read and written in each second; 0 is no limit.
package struct TransferRates: Codable, Sendable, Equatable {
  package var readBytes: UInt64
  package var writeBytes: UInt64
  package var readOperations: UInt64
  package var writeOperations: UInt64
  /// What these come to meanwhile may be had at once after a rest.
  package var burstSeconds: UInt64

  package init(
    readBytes: UInt64 = 0, writeBytes: UInt64 = 0, readOperations: UInt64 = 0,
    writeOperations: UInt64 = 0, burstSeconds: UInt64 = 1
  ) {
    self.readBytes = readBytes
    self.writeBytes = writeBytes
    self.readOperations = readOperations
    self.writeOperations = writeOperations
    self.burstSeconds = burstSeconds
  }
}
