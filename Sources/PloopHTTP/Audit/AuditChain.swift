internal import PloopControl
internal import PloopIO
internal import PloopJSON

/// Where a chain of lines has come to: each line has the hash of the one before, so none can be changed,
/// left out or put in without all later ones being written anew.
package struct AuditChain: Sendable, Equatable {
  /// Of a line before which there is none.
  static let beginning = AuditChain(number: 0, hash: String(repeating: "0", count: 64))

  /// Of the last line; 0 where there is none.
  package let number: UInt64
  /// SHA-256 of the last line, without its end.
  package let hash: String

  private init(number: UInt64, hash: String) {
    self.number = number
    self.hash = hash
  }

  /// A chain that has come to where somebody has noted it.
  ///
  /// - Returns: nil for where none of ours comes to, or behind which no line could be told from others.
  init?(noted number: UInt64, hash: String) {
    guard number < UInt64(JSON.largestNumber), hash.utf8.count == 64,
      hash.utf8.allSatisfy({ "0123456789abcdef".utf8.contains($0) }),
      number > 0 || hash == AuditChain.beginning.hash
    else { return nil }
    self.init(number: number, hash: hash)
  }

  /// The chain with one more line, and that line without its end.
  func adding(_ members: [JSON.Member]) -> (chain: AuditChain, line: [UInt8]) {
    let number = number &+ 1
    let line = JSON.object(
      [.init(name: "n", value: .count(number))] + members
        + [.init(name: "previous", value: .string(hash))]
    ).encoded
    return (AuditChain(number: number, hash: SHA256.hexDigest(line)), line)
  }

  /// The chain as it is behind a line.
  ///
  /// - Returns: nil for what is no line of an audit log.
  static func behind(_ line: [UInt8]) -> (chain: AuditChain, previous: String)? {
    guard case .object(let members)? = try? JSONParser.parse(line),
      case .integer(let number)? = members.first?.value, members.first?.name == "n", number > 0,
      case .string(let previous)? = members.last?.value, members.last?.name == "previous"
    else { return nil }
    return (AuditChain(number: UInt64(number), hash: SHA256.hexDigest(line)), previous)
  }
}

/// Follows a chain through all its lines, of one file after the other.
package struct AuditVerifier: Sendable {
  package struct Fault: Error, CustomStringConvertible {
    package let description: String
  }

  package private(set) var lineCount: UInt64 = 0
  /// Number of the first line that was seen.
  package private(set) var first: UInt64?
  /// Behind the last line that was seen.
  package private(set) var head = AuditChain.beginning
  /// How many lines could not be written, as later ones say.
  package private(set) var lostCount: UInt64 = 0
  /// How many lines a crash has taken, as the ones behind it say.
  package private(set) var missingCount: UInt64 = 0
  /// How often the service did not come to its end.
  package private(set) var crashCount: UInt64 = 0
  /// Whether the head that somebody has noted was come past.
  package private(set) var hasSeenNoted: Bool
  private let noted: String?

  /// - Parameter noted: the hash of a line that was in the log once.
  package init(noted: String? = nil) {
    self.noted = noted
    hasSeenNoted = noted == nil
  }

  /// - Parameter line: without its end.
  package mutating func take(_ line: [UInt8]) throws(Fault) {
    guard let (chain, previous) = AuditChain.behind(line) else {
      throw Fault(description: "it is no line of an audit log")
    }
    let said = try? JSONParser.parse(line)
    if first != nil, let missing = AuditVerifier.missing(said),
      missing.lowerBound == head.number &+ 1, missing.upperBound &+ 1 == chain.number
    {
      missingCount += UInt64(missing.count)
    } else if first != nil {
      guard chain.number == head.number &+ 1 else {
        throw Fault(
          description:
            "line \(chain.number) follows line \(head.number): some are missing, or were moved")
      }
      guard previous == head.hash else {
        throw Fault(
          description:
            "line \(chain.number) does not belong behind line \(head.number), which was changed")
      }
    } else if chain.number == 1, previous != AuditChain.beginning.hash {
      throw Fault(description: "the first line was changed")
    }
    first = first ?? chain.number
    head = chain
    lineCount += 1
    if chain.hash == noted { hasSeenNoted = true }
    if case .integer(let lost)? = said?.member("lost") {
      let (sum, isTooLarge) = lostCount.addingReportingOverflow(UInt64(clamping: lost))
      lostCount = isTooLarge ? .max : sum
    }
    if said?.member("event") == .string("crash") { crashCount += 1 }
  }

  private static func missing(_ line: JSON?) -> ClosedRange<UInt64>? {
    guard case .integer(let from)? = line?.member("missing_from"),
      case .integer(let to)? = line?.member("missing_to"), from > 0, from <= to
    else { return nil }
    return UInt64(from)...UInt64(to)
  }
}
