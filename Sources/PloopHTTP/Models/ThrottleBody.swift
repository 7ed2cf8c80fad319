internal import PloopControl
internal import PloopIO
internal import PloopJSON

// How fast a disk's clients may go, both ways.

extension Fields {
  private static let burstSeconds: ClosedRange<UInt64> = 1...3_600

  /// - Returns: nil where nothing is said; null resets what it stands for.
  mutating func throttle() throws(Problem) -> TransferRatesChange? {
    switch json("throttle") {
    case nil: return nil
    case .null?: return .reset
    case let value?:
      var fields = try Fields(value, at: "/throttle")
      let change = TransferRatesChange(
        readBytes: try fields.removableNumber("read_bps"),
        writeBytes: try fields.removableNumber("write_bps"),
        readOperations: try fields.removableNumber("read_iops"),
        writeOperations: try fields.removableNumber("write_iops"),
        burstSeconds: try fields.removableNumber("burst_seconds", in: Fields.burstSeconds))
      try fields.finish()
      return change
    }
  }
}

extension TransferRates {
  var json: JSON {
    .members([
      "read_bps": .count(readBytes), "write_bps": .count(writeBytes),
      "read_iops": .count(readOperations), "write_iops": .count(writeOperations),
      "burst_seconds": .count(burstSeconds),
    ])
  }
}
