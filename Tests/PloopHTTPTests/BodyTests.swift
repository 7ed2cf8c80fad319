import PloopFormat
import PloopIO
import PloopJSON
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("Request bodies")
struct BodyTests {
  let service: FakeService

  init() throws { service = try FakeService() }

  private func send(_ method: String, _ target: String, _ body: String) async -> HTTPReply {
    let request = HTTPRequest(
      method: method, target: target.utf8,
      headers: [("Host", "localhost"), ("Content-Type", "application/json")],
      body: Array(body.utf8))
    return await Router(service).answer(request, requestID: "r1")
  }

  @Test("an attach request arrives with all its members")
  func attach() async throws {
    let reply = await send(
      "POST", "/v1/devices",
      """
      {"id":"vm2","deltas":[{"path":"main:base.raw","format":"raw"},{"path":"top.hds"}],
       "readonly":true,"suspended":true,"autostart":false,"labels":{"tenant":"a"},
       "repair":"safe","export":{"name":"door"}}
      """)
    #expect(reply.status == 201)
    let request = try #require(service.state.withLock { $0.attached.first })
    #expect(request.id == "vm2" && request.readonly && request.suspended && !request.autostart)
    #expect(request.labels == ["tenant": "a"] && request.repair == .safe)
    #expect(request.exportName == "door")
    guard case .deltas(let deltas) = request.source else {
      Issue.record("not from deltas")
      return
    }
    #expect(deltas == [.init(path: "main:base.raw", isRaw: true), .init(path: "top.hds")])
  }

  @Test("a descriptor may be opened at its top or, for reading, at a snapshot")
  func descriptor() async throws {
    let guid = "5FBAABE3-6958-40ff-92a7-860e329aab41"
    let bodies = [
      #"{"id":"a","descriptor":"vm1/DiskDescriptor.xml"}"#,
      #"{"id":"b","descriptor":"x","at":"{\#(guid)}"}"#,
      #"{"id":"c","descriptor":"x","at":"\#(guid)","readonly":true}"#,
    ]
    for body in bodies { #expect(await send("POST", "/v1/devices", body).status == 201) }
    let requests = service.state.withLock { $0.attached }
    var references: [AttachRequest.DescriptorReference] = []
    for case .descriptor(let reference) in requests.map(\.source) { references.append(reference) }
    #expect(
      references == [
        .init(path: "vm1/DiskDescriptor.xml"), .init(path: "x", snapshot: .top),
        .init(path: "x", snapshot: .top),
      ])
    #expect(requests.map(\.readonly) == [false, true, true])
    let writing = #"{"id":"d","descriptor":"x","at":"\#(guid)","readonly":false}"#
    #expect(await send("POST", "/v1/devices", writing).status == 409)
  }

  @Test("a create request needs directory and size, and has defaults for the rest")
  func create() async throws {
    let bodies = [
      #"{"id":"a","create":{"directory":"main:a","size":1.073741824e9}}"#,
      #"{"id":"b","create":{"directory":"b","size":65536,"cluster_size":65536.0,"version":1}}"#,
    ]
    for body in bodies { #expect(await send("POST", "/v1/devices", body).status == 201) }
    let sources = service.state.withLock { $0.attached.map(\.source) }
    guard sources.count == 2, case .create(let first) = sources[0],
      case .create(let second) = sources[1]
    else {
      Issue.record("not two creations")
      return
    }
    #expect(first.sizeBytes == 1 << 30 && first.clusterBytes == 1 << 20 && first.version == .v2)
    #expect(second.sizeBytes == 65_536 && second.clusterBytes == 65_536 && second.version == .v1)
    let request = service.state.withLock { $0.attached[0] }
    #expect(request.autostart && !request.readonly && !request.suspended)
    #expect(request.repair == .none && request.exportName == nil && request.labels.isEmpty)
  }

  static let refused: [(String, String, String)] = [
    ("[]", "invalid-value", ""), ("null", "invalid-value", ""), ("{}", "invalid-value", "/id"),
    (#"{"id":1}"#, "invalid-value", "/id"), (#"{"id":"a"}"#, "invalid-value", "/deltas"),
    (#"{"id":"a","deltas":[]}"#, "invalid-value", "/deltas"),
    (#"{"id":"a","deltas":{}}"#, "invalid-value", "/deltas"),
    (#"{"id":"a","deltas":["x"]}"#, "invalid-value", "/deltas/0"),
    (#"{"id":"a","deltas":[{"path":"x"},{"path":2}]}"#, "invalid-value", "/deltas/1/path"),
    (#"{"id":"a","deltas":[{"path":"x","format":"qcow2"}]}"#, "invalid-value", "/deltas/0/format"),
    (#"{"id":"a","deltas":[{"path":"x","form/t~":1}]}"#, "unknown-field", "/deltas/0/form~1t~0"),
    (#"{"id":"a","deltas":[{"path":"x","path":"y"}]}"#, "duplicate-key", "/deltas/0/path"),
    (#"{"id":"a","deltas":[{"path":"x"}],"create":{}}"#, "invalid-value", "/deltas"),
    (#"{"id":"a","deltas":[{"path":"x"}],"descriptor":"y"}"#, "invalid-value", "/deltas"),
    (#"{"id":"a","descriptor":"y","create":{}}"#, "invalid-value", "/deltas"),
    (#"{"id":"a","descriptor":{}}"#, "invalid-value", "/descriptor"),
    (#"{"id":"a","descriptor":"y","at":"x"}"#, "invalid-value", "/at"),
    (#"{"id":"a","deltas":[{"path":"x"}],"at":"x"}"#, "invalid-value", "/at"),
    (#"{"id":"a","create":{"size":1}}"#, "invalid-value", "/create/directory"),
    (#"{"id":"a","create":{"directory":"d"}}"#, "invalid-value", "/create/size"),
    (#"{"id":"a","create":{"directory":"d","size":-1}}"#, "invalid-value", "/create/size"),
    (#"{"id":"a","create":{"directory":"d","size":1.5}}"#, "invalid-value", "/create/size"),
    (#"{"id":"a","create":{"directory":"d","size":"1"}}"#, "invalid-value", "/create/size"),
    (
      #"{"id":"a","create":{"directory":"d","size":9007199254740992}}"#, "invalid-value",
      "/create/size"
    ),
    (
      #"{"id":"a","create":{"directory":"d","size":1,"version":3}}"#, "invalid-value",
      "/create/version"
    ),
    (
      #"{"id":"a","create":{"directory":"d","size":1,"mode":"raw"}}"#, "unknown-field",
      "/create/mode"
    ),
    (#"{"id":"a","deltas":[{"path":"x"}],"readonly":1}"#, "invalid-value", "/readonly"),
    (#"{"id":"a","deltas":[{"path":"x"}],"readonly":null}"#, "invalid-value", "/readonly"),
    (#"{"id":"a","deltas":[{"path":"x"}],"repair":"force"}"#, "invalid-value", "/repair"),
    (#"{"id":"a","deltas":[{"path":"x"}],"labels":{"a":1}}"#, "invalid-value", "/labels"),
    (#"{"id":"a","deltas":[{"path":"x"}],"labels":{"a":null}}"#, "invalid-value", "/labels"),
    (#"{"id":"a","deltas":[{"path":"x"}],"export":{}}"#, "invalid-value", "/export/name"),
    (
      #"{"id":"a","deltas":[{"path":"x"}],"export":{"name":"d","tls":"off"}}"#, "unknown-field",
      "/export/tls"
    ),
    (#"{"id":"a","deltas":[{"path":"x"}],"takeover":true}"#, "unknown-field", "/takeover"),
  ]

  @Test("what the schema does not allow is refused with its place", arguments: refused)
  func refuses(body: String, slug: String, pointer: String) async {
    let reply = await send("POST", "/v1/devices", body)
    #expect(reply.status == 400)
    #expect(reply.member("code") == .string(slug))
    guard case .array(let errors)? = reply.member("errors") else {
      Issue.record("no errors in \(String(describing: reply.body))")
      return
    }
    #expect(errors.first?.member("pointer") == .string(pointer))
    #expect(service.state.withLock { $0.attached.isEmpty })
  }

  @Test("a change holds only what it names; null removes a label")
  func change() async throws {
    #expect(await send("PATCH", "/v1/devices/vm1", "{}").status == 200)
    let body = #"{"suspended":true,"autostart":false,"labels":{"a":"1","b":null}}"#
    #expect(await send("PATCH", "/v1/devices/vm1", body).status == 200)
    let changes = service.state.withLock { $0.changes }
    try #require(changes.count == 2)
    #expect(changes[0].suspended == nil && changes[0].autostart == nil && changes[0].labels == nil)
    #expect(changes[1].suspended == true && changes[1].autostart == false)
    #expect(changes[1].labels == ["a": "1", "b": nil])
    #expect(await send("PATCH", "/v1/devices/vm1", #"{"suspended":null}"#).status == 400)
  }

  @Test("suspending says for how long and by whom; who says nothing is known by the kernel")
  func suspending() async throws {
    let bodies = [
      #"{"suspended":true,"suspend_timeout_seconds":30,"holder":"nightly"}"#,
      #"{"noresume":true,"suspended":true}"#, #"{"suspended":false,"force":true}"#,
    ]
    for body in bodies { #expect(await send("PATCH", "/v1/devices/vm1", body).status == 200) }
    let changes = service.state.withLock { $0.changes }
    try #require(changes.count == 3)
    #expect(changes[0].suspendSeconds == 30 && changes[0].caller == "nightly")
    #expect(changes[1].noresume == true && changes[1].caller == "uid:0" && !changes[1].isForced)
    #expect(changes[2].suspended == false && changes[2].isForced)
    let refused = [
      (#"{"suspend_timeout_seconds":0}"#, "/suspend_timeout_seconds"),
      (#"{"suspend_timeout_seconds":86401}"#, "/suspend_timeout_seconds"),
      (#"{"noresume":null}"#, "/noresume"), (#"{"holder":""}"#, "/holder"),
      (#"{"holder":1}"#, "/holder"), (#"{"force":1}"#, "/force"),
    ]
    for (body, pointer) in refused {
      let reply = await send("PATCH", "/v1/devices/vm1", body)
      #expect(reply.status == 400, "\(body)")
      guard case .array(let errors)? = reply.member("errors") else {
        Issue.record("no errors for \(body)")
        continue
      }
      #expect(errors.first?.member("pointer") == .string(pointer))
    }
  }

  @Test("an empty body is malformed", arguments: ["POST /v1/devices", "PATCH /v1/devices/vm1"])
  func empty(line: String) async {
    let words = line.split(separator: " ").map(String.init)
    let reply = await send(words[0], words[1], "")
    #expect(reply.status == 400 && reply.member("code") == .string("malformed-json"))
  }
}
