internal import PloopControl
internal import PloopIO
internal import PloopJSON

/// What exports show, over HTTP: the bytes, and which of them are worth being read.
let dataRoutes: [Route] = [
  Route("GET", "/v1/exports/{name}/data", "getExportData", .data, reach: .own) {
    call throws(Problem) in
    let content = try await ownContent(call)
    let size = content.sizeBytes
    let part = try wantedPart(of: size, by: call.request)
    var reply = HTTPReply(part == nil ? 200 : 206).with("Accept-Ranges", "bytes")
    if let part {
      reply = reply.with(
        "Content-Range", "bytes \(part.lowerBound)-\(part.upperBound - 1)/\(size)")
    }
    let range = part ?? 0..<size
    let kind = ReplyStream.Kind.bytes(UInt64(range.count))
    guard call.request.method != "HEAD" else {
      reply.stream = ReplyStream(headOf: kind)
      return reply
    }
    let data = DataStream(call: call, content: content, range: range)
    // What cannot be read at all is a problem, and no reply that breaks off.
    let first = try await converting { () async throws(ServiceError) in
      try await data.piece(at: range.lowerBound)
    }
    reply.stream = ReplyStream(kind) { await data.run($0, beginningWith: first) }
    return reply
  },
  Route(
    "GET", "/v1/exports/{name}/extents", "listExtents", .read, reach: .own,
    parameters: ["context", "offset", "length", "limit"]
  ) { call throws(Problem) in
    let offset = try call.number("offset", in: 0...(1 << 62), default: 0)
    let length = try call.number("length", in: 1...(1 << 62), default: 1 << 62)
    let limit = try call.number("limit", in: 1...10_000, default: 1000)
    let content = try await ownContent(call)
    let page = try await converting { () async throws(ServiceError) in
      try await content.extents(
        in: call.parameter("context") ?? "base", offset: offset, length: length,
        limit: Int(limit))
    }
    return HTTPReply(200, page.json)
  },
]

/// Whose it is comes first: how it is is nobody else's business.
private func ownContent(_ call: Call) async throws(Problem) -> any ExportContent {
  if call.caller.grant.devices != nil { _ = try await ownExport(call) }
  return try await converting { () async throws(ServiceError) in
    try await call.service.content(of: call.arguments[0])
  }
}

private func wantedPart(
  of size: UInt64, by request: HTTPRequest
) throws(Problem) -> Range<UInt64>? {
  do throws(Problem) {
    guard let range = try ByteRange(of: request) else { return nil }
    guard let part = range.bytes(of: size) else {
      throw Problem("range-invalid", "the export has \(size) bytes, and none of these")
    }
    return part
  } catch {
    var problem = error
    problem.sizeBytes = size
    throw problem
  }
}

/// A part of an export, read as fast as the client takes it: one piece is being sent, and one read meanwhile.
private struct DataStream: Sendable {
  private static let pieceBytes: UInt64 = 128 << 10

  let call: Call
  let content: any ExportContent
  let range: Range<UInt64>

  func piece(at offset: UInt64) async throws(ServiceError) -> [UInt8] {
    try await content.read(
      at: offset, count: Int(min(DataStream.pieceBytes, range.upperBound - offset)))
  }

  private var nextReview: Deadline {
    .after(milliseconds: call.watchers.reviewMilliseconds)
  }

  func run(_ body: StreamBody, beginningWith first: [UInt8]) async {
    var piece = first
    var position = range.lowerBound
    var review = nextReview
    while true {
      if review.hasPassed {
        // As who waits for changes: a token that is revoked ends what it has begun.
        guard call.isStillAllowed else { return body.fail() }
        review = nextReview
      }
      position += UInt64(piece.count)
      guard position < range.upperBound else {
        _ = await body.send(piece)
        return
      }
      let offset = position
      async let next = self.piece(at: offset)
      guard await body.send(piece) else { return }
      guard let next = try? await next else { return body.fail() }
      piece = next
    }
  }
}

extension ExtentPage {
  fileprivate var json: JSON {
    .members([
      "context": .string(context), "contexts": .array(contexts.map(JSON.string)),
      "extents": .array(
        extents.map { extent in
          let place: [JSON.Member] = [
            .init(name: "start", value: .count(extent.start)),
            .init(name: "length", value: .count(extent.length)),
          ]
          let status: [JSON.Member] =
            switch extent.status {
            case .allocation(let isData, let readsZero):
              [
                .init(name: "data", value: .bool(isData)),
                .init(name: "zero", value: .bool(readsZero)),
              ]
            case .depth(let depth): [.init(name: "depth", value: .integer(Int64(depth)))]
            case .dirty(let isDirty): [.init(name: "dirty", value: .bool(isDirty))]
            }
          return .object(place + status)
        }), "next_offset": nextOffset.map(JSON.count) ?? .null,
    ])
  }
}
