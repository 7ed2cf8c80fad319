internal import PloopIO
internal import PloopNBD

/// What an export shows, for who is no NBD client.
package protocol ExportContent: Sendable {
  var device: String { get }
  var sizeBytes: UInt64 { get }

  /// Waits while the disk is suspended, and not longer than the task that asks is wanted.
  ///
  /// - Parameter count: bytes, of which the export has so many from `offset` on.
  func read(at offset: UInt64, count: Int) async throws(ServiceError) -> [UInt8]

  /// - Parameters:
  ///   - context: one of ``ExtentPage/contexts``.
  ///   - limit: at most so many extents.
  func extents(
    in context: String, offset: UInt64, length: UInt64, limit: Int
  ) async throws(ServiceError) -> ExtentPage
}

/// What is known of an export's bytes, from one offset on.
package struct ExtentPage: Sendable {
  package enum Status: Sendable {
    case allocation(isData: Bool, readsZero: Bool)
    /// 1 where the newest delta has the content, 0 where none has.
    case depth(Int)
    /// Whether something may have been written since a checkpoint.
    case dirty(Bool)
  }

  package struct Extent: Sendable {
    package var start: UInt64
    package var length: UInt64
    package var status: Status
  }

  package var context: String
  /// All that the export can tell of.
  package var contexts: [String]
  package var extents: [Extent]
  /// Where to go on; nil at the end of what was asked for.
  package var nextOffset: UInt64?
}

/// The same door that NBD clients use, and so the same reads.
struct DoorContent: ExportContent {
  let device: String
  let door: DeviceExport
  let engine: IOEngine
  /// Whose turns its reads take.
  let party: UInt64
  /// Whether the export is there still, and is this one.
  let isThere: @Sendable () -> Bool
  let waiting: WaitingQuestions

  var sizeBytes: UInt64 { door.size }

  func read(at offset: UInt64, count: Int) async throws(ServiceError) -> [UInt8] {
    guard count > 0, offset <= sizeBytes, UInt64(count) <= sizeBytes - offset else {
      throw ServiceError(.rangeInvalid, "the export has \(sizeBytes) bytes")
    }
    guard isThere() else {
      throw ServiceError(.exportNotFound, "the export was closed meanwhile", errno: "ENOENT")
    }
    if let frozen = door.frozen { return try await frozen.bytes(at: offset, count, on: engine) }
    return try await asking { [door] () throws(NBDError) in
      let buffer = AlignedBuffer(unfilled: count)
      var holes = HoleList()
      try door.read(into: buffer.region, at: offset, holes: &holes)
      return buffer.region.bytes
    }
  }

  func extents(
    in context: String, offset: UInt64, length: UInt64, limit: Int
  ) async throws(ServiceError) -> ExtentPage {
    let known = door.contexts
    let names = known.map(\.shortName)
    guard let wanted = known.first(where: { $0.shortName == context }) else {
      throw ServiceError(
        context.hasPrefix(Context.dirtyPrefix) ? .checkpointNotFound : .invalidValue,
        "the export has no context \(context.prefix(80)); there are \(names.joined(separator: ", "))"
      )
    }
    guard offset <= sizeBytes else {
      throw ServiceError(
        .valueImpossible, "the offset \(offset) is beyond the export's \(sizeBytes) bytes")
    }
    let end = offset + min(length, sizeBytes - offset)
    var page = ExtentPage(context: context, contexts: names, extents: [], nextOffset: nil)
    guard offset < end else { return page }
    let runs = try await asking { [door] () throws(NBDError) in
      try wanted.statuses(of: door, offset: offset, length: end - offset, limit: limit)
    }
    var position = offset
    for (length, status) in runs {
      page.extents.append(.init(start: position, length: length, status: status))
      position += length
    }
    page.nextOffset = position < end ? position : nil
    return page
  }

  /// Has the engine do something, when requests are admitted.
  private func asking<Answer: Sendable>(
    _ work: @escaping @Sendable () throws(NBDError) -> Answer
  ) async throws(ServiceError) -> Answer {
    let question = Question<Result<Answer, NBDError>>(
      withoutAnswer: .failure(NBDError(.shuttingDown, "nobody waits for it any more")))
    // What waits for a suspended disk waits on although its asker may have gone.
    guard waiting.begin() else {
      throw ServiceError(
        .deviceBusy, "too many requests wait for disks that are suspended", errno: "EBUSY")
    }
    let result = await question.answer { [door, engine, party, waiting] in
      door.perform(on: engine, for: party) {
        waiting.end()
        guard question.isOpen else { return }
        do throws(NBDError) {
          let answer = try work()
          // Behind what it answers, as replies to NBD clients are (docs/fleet.md, "The fence").
          guard door.mayAnswer else {
            throw NBDError(.shuttingDown, "another node may have the disk by now")
          }
          question.close(with: .success(answer))
        } catch { question.close(with: .failure(error)) }
      }
    }
    do throws(NBDError) { return try result.get() } catch {
      switch error.kind {
      case .shuttingDown:
        throw ServiceError(.deviceBusy, error.message, errno: "ESHUTDOWN")
      case .notPermitted, .io, .invalid, .noSpace, .overflow, .notSupported:
        throw ServiceError(.ioError, error.message, errno: "EIO")
      }
    }
  }
}

/// How many questions have not been taken up, of all exports together.
final class WaitingQuestions: Sendable {
  private static let most = 1_024

  private let count = Locked(0)

  /// - Returns: false when there are too many.
  func begin() -> Bool {
    count.withLock { count in
      guard count < WaitingQuestions.most else { return false }
      count += 1
      return true
    }
  }

  func end() { count.withLock { $0 -= 1 } }
}

extension Context {
  fileprivate static let dirtyPrefix = "dirty:"

  /// As the API calls it.
  fileprivate var shortName: String {
    switch self {
    case .allocation: "base"
    case .depth: "depth"
    case .dirtyBitmap(let name): Context.dirtyPrefix + name
    }
  }

  fileprivate func statuses(
    of door: DeviceExport, offset: UInt64, length: UInt64, limit: Int
  ) throws(NBDError) -> [(UInt64, ExtentPage.Status)] {
    switch self {
    case .allocation:
      try door.extents(offset: offset, length: length, limit: limit).map {
        ($0.length, .allocation(isData: !$0.isHole, readsZero: $0.readsZero))
      }
    case .depth:
      try door.depths(offset: offset, length: length, limit: limit).map {
        ($0.length, .depth($0.depth))
      }
    case .dirtyBitmap(let name):
      try door.dirtyRuns(of: name, offset: offset, length: length, limit: limit).map {
        ($0.length, .dirty($0.isDirty))
      }
    }
  }
}

extension Service {
  package func content(of export: String) async throws(ServiceError) -> any ExportContent {
    guard let entry = table.entry(export), record(of: entry.device) != nil else {
      throw ServiceError(
        .exportNotFound, "there is no export \(export.prefix(80))", errno: "ENOENT")
    }
    guard entry.isOpen, let door = entry.door else {
      // A device that has failed says so.
      _ = try controller(entry.device).device()
      throw ServiceError(
        .deviceBusy, "the export \(export) takes no clients now", errno: "ESHUTDOWN")
    }
    return DoorContent(
      device: entry.device, door: door, engine: engine, party: engine.newParty(),
      isThere: { [table] in table.entry(export)?.number == entry.number },
      waiting: waitingQuestions)
  }
}
