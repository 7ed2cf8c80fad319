internal import PloopControl

/// The part of a whole that a request asks for (RFC 9110, section 14). One part: several would have to be sent as
/// `multipart/byteranges`, and whoever wants several can ask several times.
package enum ByteRange: Equatable {
  /// Up to the end of the whole, where no last byte is named; the last one may lie beyond it.
  case between(UInt64, UInt64?)
  case last(UInt64)

  /// Nil where the request asks for everything: by GET alone can it ask for less, in bytes alone, and not on
  /// condition of an entity tag, since what disks hold has none.
  ///
  /// - Throws: `range-invalid` for what the standard does not know, and for several ranges.
  init?(of request: HTTPRequest) throws(Problem) {
    guard request.method == "GET", request.values(of: "if-range").isEmpty else { return nil }
    try self.init(headerOf: request)
  }

  /// The range that the header names, whatever the method; nil where there is none, or none of bytes.
  ///
  /// - Throws: as ``init(of:)``.
  package init?(headerOf request: HTTPRequest) throws(Problem) {
    let value = request.values(of: "range").joined(separator: ",")
    guard let equals = value.firstIndex(of: "="), value[..<equals].lowercased() == "bytes" else {
      return nil
    }
    let ranges = value[value.index(after: equals)...].split(separator: ",")
      .map(ByteRange.trimmed).filter { !$0.isEmpty }
    guard ranges.count == 1, let range = ByteRange(ranges[0]) else {
      throw Problem("range-invalid", "one range is expected, as in Range: bytes=0-1048575")
    }
    self = range
  }

  private static func trimmed(_ text: Substring) -> String {
    func isSpace(_ letter: Character) -> Bool { letter == " " || letter == "\t" }
    return String(text.drop(while: isSpace).reversed().drop(while: isSpace).reversed())
  }

  private init?(_ text: String) {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false)
    guard ends.count == 2, ends.allSatisfy({ $0.allSatisfy(\.isASCIIDigit) }) else { return nil }
    // More than any number that there is: beyond every end.
    let numbers = ends.map { $0.isEmpty ? nil : UInt64($0) ?? .max }
    switch (numbers[0], numbers[1]) {
    case (let first?, let last): self = .between(first, last)
    case (nil, let count?): self = .last(count)
    case (nil, nil): return nil
    }
    if case .between(let first, let last?) = self, last < first { return nil }
  }

  /// The bytes that these are of so many; nil where there are none.
  package func bytes(of size: UInt64) -> Range<UInt64>? {
    switch self {
    case .between(let first, let last):
      guard first < size else { return nil }
      return first..<(last.map { min($0, size - 1) + 1 } ?? size)
    case .last(let count):
      guard count > 0, size > 0 else { return nil }
      return size - min(count, size)..<size
    }
  }
}
