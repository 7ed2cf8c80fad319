@testable import PloopControl

/// Three pieces of what is sent at a time, each 8 bytes of which say where they are.
struct FakeContent: ExportContent {
  static let size: UInt64 = 3 << 17

  static func bytes(_ range: Range<UInt64>) -> [UInt8] {
    range.map { UInt8(truncatingIfNeeded: ($0 / 8) >> (8 * ($0 % 8))) }
  }

  let device: String
  let brokenFrom: UInt64
  let sizeBytes = size

  func read(at offset: UInt64, count: Int) async throws(ServiceError) -> [UInt8] {
    guard offset + UInt64(count) <= brokenFrom else {
      throw ServiceError(.ioError, "the disk is broken", errno: "EIO")
    }
    return FakeContent.bytes(offset..<offset + UInt64(count))
  }

  func extents(
    in context: String, offset: UInt64, length: UInt64, limit: Int
  ) async throws(ServiceError) -> ExtentPage {
    let statuses: [String: ExtentPage.Status] = [
      "base": .allocation(isData: true, readsZero: false), "depth": .depth(2),
      "dirty:cp-1": .dirty(true),
    ]
    guard let status = statuses[context] else {
      throw ServiceError(.checkpointNotFound, "there is none")
    }
    return ExtentPage(
      context: context, contexts: statuses.keys.sorted(),
      extents: [.init(start: offset, length: 1 << 16, status: status)],
      nextOffset: offset + 1 << 16)
  }
}
