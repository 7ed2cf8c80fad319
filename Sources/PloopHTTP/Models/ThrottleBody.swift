internal import PloopControl
internal import PloopIO
internal import PloopJSON

// How fast a disk's clients may go, both ways.

extension Fields {
  private static let burstSeconds: ClosedRange<UInt64> = 1...3_600

  /// - Returns: nil where nothing is said, nil within for no limits.
  mutating func throttle() throws(Problem) -> TransferRates?? {
    switch json("throttle") {
    case nil: return nil
    case .null?: return .some(nil)
    case let value?:
      var fields = try Fields(value, at: "/throttle")
      let rates = TransferRates(
        readBytes: try fields.number("read_bps") ?? 0,
        writeBytes: try fields.number("write_bps") ?? 0,
        readOperations: try fields.number("read_iops") ?? 0,
        writeOperations: try fields.number("write_iops") ?? 0,
        burstSeconds: try fields.number("burst_seconds", in: Fields.burstSeconds) ?? 1)
      try fields.finish()
      return .some(rates)
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
