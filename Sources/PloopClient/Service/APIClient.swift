internal import PloopJSON
internal import PloopPeer

/// Sends requests and says what came of them.
struct APIClient: Sendable {
  struct Answer: Sendable {
    var status: Int
    var bytes: [UInt8]
    /// Null where there is no body.
    var json: JSON = .null
  }

  /// What a service of 1,000 devices says of them at once, and more.
  private static let replyLimitBytes = 256 << 20
  /// A tree of snapshots is as deep as its longest branch.
  private static let limits = JSONParser.Limits(depth: 2_000, items: 1_000_000)

  let endpoint: Endpoint
  let token: Token?
  let tls: HTTPClient.Identity
  /// For one request; 0 for as long as it takes.
  var seconds: Int

  private func http() throws(ClientFault) -> HTTPClient {
    guard let address = endpoint.peer else {
      throw ClientFault(.usage, "\(endpoint.base) is no address")
    }
    var http = HTTPClient(address: address)
    http.seconds = seconds
    http.allowsLinkLocal = true
    http.replyLimitBytes = APIClient.replyLimitBytes
    http.identity = tls
    http.identity.secret = token?.secret
    return http
  }

  /// - Throws: for an answer that is no success, too.
  func send(_ request: Request) throws(ClientFault) -> Answer {
    let answer = try answer(request)
    guard APIClient.isSuccess(answer.status) else { throw APIClient.fault(answer) }
    return answer
  }

  /// A proxy that answers with another address has done nothing. 304 is an answer to a condition.
  private static func isSuccess(_ status: Int) -> Bool {
    (200..<300).contains(status) || status == 304
  }

  /// Sends it, and returns whatever is answered.
  func answer(_ request: Request) throws(ClientFault) -> Answer {
    let http = try http()
    let reply: HTTPClient.Reply
    do throws(PeerError) {
      reply = try http.send(
        request.method, request.target, request.body?.encoded, headers: request.headers)
    } catch { throw ClientFault(.unreachable, error.detail) }
    var answer = Answer(status: reply.status, bytes: reply.body)
    if reply.body.first == UInt8(ascii: "{"),
      let json = try? JSONParser.parse(reply.body, APIClient.limits)
    {
      answer.json = json
    }
    return answer
  }

  /// Follows an answer without end.
  ///
  /// - Parameter receive: is given each piece as it comes, for as long as the call lasts (``HTTPClient``); false ends it.
  /// - Returns: when the service, or `receive`, has ended it.
  func stream(
    _ request: Request, _ receive: (UnsafeRawBufferPointer) -> Bool
  ) throws(ClientFault) {
    let http = try http()
    let reply: HTTPClient.Reply
    do throws(PeerError) {
      reply = try http.stream(request.target, headers: request.headers, receive)
    } catch { throw ClientFault(.unreachable, error.detail) }
    guard APIClient.isSuccess(reply.status) else {
      throw APIClient.fault(
        Answer(
          status: reply.status, bytes: reply.body,
          json: (try? JSONParser.parse(reply.body)) ?? .null))
    }
  }

  static func fault(_ answer: Answer) -> ClientFault {
    let status = Outcome(httpStatus: answer.status)
    guard answer.json.member("code") != nil else {
      return ClientFault(status, "the answer is status \(answer.status)")
    }
    return ClientFault(status, problem: answer.json)
  }
}
