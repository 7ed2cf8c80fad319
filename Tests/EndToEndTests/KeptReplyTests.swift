import Foundation
import TestSupport
import Testing

/// The service gives what it has said a moment ago to who asks again; nobody is to notice.
@Suite("What is asked for again and again")
struct KeptReplyTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  @Test("shows each write whose end its client has been told, and each change")
  func own() throws {
    let service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 16).status == 201)
    let seen = try Tool.python(
      """
      import http.client, json, nbd, socket, sys
      class Connection(http.client.HTTPConnection):
          def connect(self):
              self.sock = socket.socket(socket.AF_UNIX)
              self.sock.connect(sys.argv[1])
      api = Connection("localhost")
      def device():
          api.request("GET", "/v1/devices/vm")
          return json.load(api.getresponse())
      h = nbd.NBD()
      h.connect_uri(sys.argv[2])
      for cluster in range(200):
          h.pwrite(b"x" * 512, cluster << 16)
          for _ in range(3):
              mapped = device()["clusters"]["mapped"]
              assert mapped == cluster + 1, (mapped, cluster)
      for number in range(50):
          body = json.dumps({"labels": {"number": str(number)}})
          api.request("PATCH", "/v1/devices/vm", body, {"Content-Type": "application/json"})
          changed = api.getresponse()
          changed.read()
          assert changed.status == 200
          assert device()["labels"] == {"number": str(number)}
      print("seen")
      """, [service.httpSocket, service.uri("vm")], seconds: 300)
    #expect(seen.output == "seen\n", "\(seen.output)")
  }

  @Test("is shown to nobody who may not see it, and not sent to who has it")
  func strangers() throws {
    let service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    let address = try service.httpAddress()
    for id in ["vm", "other"] {
      #expect(try service.create(id, sizeBytes: 16 << 20).status == 201)
    }
    func token(_ arguments: String) throws -> String {
      let text = try Tool.shell(
        "'\(RunningService.program)' token add \(arguments) --state-dir '\(folder.path)/state'"
      ).output.trimmingCharacters(in: .newlines)
      return "-H 'Authorization: Bearer \(text)'"
    }
    func status(_ path: String, _ options: String) throws -> String {
      try Tool.shell(
        "curl -sS --max-time 60 -o '\(folder.path)/body' -w '%{http_code}' \(options) 'http://\(address)\(path)'"
      ).output
    }
    let all = try token("all --scope read")
    let some = try token("some --scope read --device 'o*'")
    let data = try token("data --scope data")
    // One of two replies is kept when the other is asked for, in whatever order they are.
    for _ in 0..<3 {
      #expect(try status("/v1/devices/vm", all) == "200")
      #expect(try status("/v1/devices/vm", some) == "404")
      #expect(try status("/v1/devices/vm", all) == "200")
      #expect(try status("/v1/devices/vm", data) == "403")
      #expect(try status("/v1/devices/vm", all) == "200")
      #expect(try status("/v1/devices/vm", "") == "401")
      #expect(try status("/v1/devices/vm", "\(all) -H 'Host: evil.example'") == "421")
      #expect(try status("/v1/devices/vm", "\(all) -H 'If-None-Match: *'") == "304")
      #expect(try status("/v1/devices", all) == "200")
      #expect(try status("/v1/devices", some) == "200")
      let list = try String(contentsOfFile: "\(folder.path)/body", encoding: .utf8)
      #expect(list.contains("\"id\":\"other\"") && !list.contains("\"id\":\"vm\""), "\(list)")
    }
    #expect(try service.delete("/v1/devices/vm").status == 204)
    #expect(try status("/v1/devices/vm", all) == "404")
  }
}
