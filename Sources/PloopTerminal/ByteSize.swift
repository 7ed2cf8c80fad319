internal import ArgumentParser

/// A size with an optional unit: 512, 64K, 1M, 10G, 2T.
package struct ByteSize: ExpressibleByArgument {
  package let bytes: UInt64

  package init(bytes: UInt64) { self.bytes = bytes }

  package init?(argument: String) {
    let units: [Character: UInt64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]
    let unit = argument.last.flatMap { units[Character($0.uppercased())] }
    guard let number = UInt64(unit == nil ? argument : String(argument.dropLast())) else {
      return nil
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: unit ?? 1)
    guard !overflow else { return nil }
    self.bytes = bytes
  }

  package var defaultValueDescription: String { rounded }

  /// For people: `1.5 GiB`, rounded down to a tenth.
  package var rounded: String {
    let units: [(name: String, shift: UInt64)] = [
      ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10),
    ]
    guard let unit = units.first(where: { bytes >> $0.shift > 0 }) else { return "\(bytes) bytes" }
    let rest = bytes & ((1 << unit.shift) - 1)
    let tenths = ((rest >> (unit.shift - 10)) * 10) >> 10
    return "\(bytes >> unit.shift)\(tenths == 0 ? "" : ".\(tenths)") \(unit.name)"
  }

  /// For people who count: `1.5 GiB (1610612736 bytes)`.
  package var exact: String { bytes < 1024 ? rounded : "\(rounded) (\(bytes) bytes)" }
}
