internal import ArgumentParser
internal import BenchKit

/// Bytes as people write them: 4096, 64K, 1M, 2G.
struct Size: ExpressibleByArgument {
  let bytes: Int

  init(bytes: Int) { self.bytes = bytes }

  init?(argument: String) {
    let units: [Character: Int] = ["K": 10, "M": 20, "G": 30, "T": 40]
    let shift = argument.last.flatMap { units[$0] }
    let digits = shift == nil ? argument[...] : argument.dropLast()
    guard let number = Int(digits), number >= 0, number < 1 << 20 || shift == nil else {
      return nil
    }
    bytes = number << (shift ?? 0)
  }

  var defaultValueDescription: String { "\(bytes)" }
}

/// `1` or `0-2`.
struct StampRange: ExpressibleByArgument {
  let stamps: ClosedRange<UInt8>

  init(stamps: ClosedRange<UInt8>) { self.stamps = stamps }

  init?(argument: String) {
    let ends = argument.split(separator: "-").map { UInt8($0) }
    guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2,
      first <= last
    else { return nil }
    stamps = first...last
  }

  var defaultValueDescription: String { "\(stamps.lowerBound)-\(stamps.upperBound)" }
}

/// A load beside the one that is looked at.
struct Neighbour: ExpressibleByArgument {
  private let kind: LoadJob.Kind
  private let order: LoadJob.Order
  private let numbers: [Int]

  init?(argument: String) {
    let parts = argument.split(separator: ",").map(String.init)
    let numbers = parts.dropFirst(2).compactMap { Size(argument: $0)?.bytes }
    guard parts.count == 6, numbers.count == 4, let kind = LoadJob.Kind(rawValue: parts[0]),
      let order = LoadJob.Order(rawValue: parts[1])
    else { return nil }
    (self.kind, self.order, self.numbers) = (kind, order, numbers)
  }

  func job(seconds: Double) -> LoadJob {
    var job = LoadJob()
    job.kind = kind
    job.order = order
    job.blockBytes = numbers[0]
    job.depth = numbers[1]
    job.offset = UInt64(numbers[2])
    job.spanBytes = UInt64(numbers[3])
    job.seed = 99
    job.limit = .seconds(seconds)
    return job
  }
}

extension LoadJob.Kind: ExpressibleByArgument {}
extension LoadJob.Order: ExpressibleByArgument {}
