import Glibc
import Logging
import PloopIO
import PloopJSON
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopHTTP

/// A request that does not come to its end while it has to be waited for: the kernel keeps it in the
/// read of its image until a permission is given (man 7 fanotify).
@Suite("Requests in flight that do not end in time")
struct DrainTests {
  private let folder: TemporaryFolder
  private let service: Service
  private let router: Router

  init() throws {
    folder = try TemporaryFolder()
    try Tool.shell("mkdir '\(folder.path)/images' '\(folder.path)/state'")
    var configuration = Service.Configuration()
    configuration.quiesceSeconds = 1
    configuration.leavingMilliseconds = 0
    service = try Service(
      roots: Roots([("main", "\(folder.path)/images")]), store: Store(path: "\(folder.path)/state"),
      engine: IOEngine(threadLimit: 4),
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
      configuration: configuration)
    try service.recover()
    try service.serveNBD(on: .unix(path: "\(folder.path)/nbd.sock"))
    router = Router(service)
  }

  private var uri: String { "nbd+unix:///vm?socket=\(folder.path)/nbd.sock" }
  private var image: String { "\(folder.path)/images/vm/root.hds" }

  private func ask(
    _ method: String, _ target: String, _ body: String = ""
  ) async -> (status: Int, code: String?) {
    let request = HTTPRequest(
      method: method, target: target.utf8,
      headers: [("Host", "localhost"), ("Content-Type", "application/json")], body: Array(body.utf8)
    )
    let reply = await router.answer(request, requestID: "r1")
    guard case .object(let members)? = reply.json,
      case .string(let code)? = members.first(where: { $0.name == "code" })?.value
    else { return (reply.status, nil) }
    return (reply.status, code)
  }

  private func create() async throws {
    let made = await ask(
      "POST", "/v1/devices",
      "{\"id\":\"vm\",\"create\":{\"directory\":\"vm\",\"size\":1048576,\"cluster_size\":65536},\"export\":{\"name\":\"vm\"}}"
    )
    #expect(made.status == 201)
    try Tool.shell("qemu-io -f raw -c 'write -P 7 0 64k' '\(uri)'")
    #expect(await ask("DELETE", "/v1/devices/vm").status == 204)
    try startHolder()
    let again = await ask(
      "POST", "/v1/devices",
      "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"export\":{\"name\":\"vm\"}}")
    #expect(again.status == 201)
  }

  /// A program that lets every read of the image through; told to hold, it reads through NBD and keeps
  /// that read inside, until it is told to let go. It has to be there before the image is opened.
  private func startHolder() throws {
    try Tool.shell(
      """
      cd '\(folder.path)'; cat > holder.py <<'END'
      import ctypes, nbd, os, select, struct, sys
      image, uri = sys.argv[1:]
      libc = ctypes.CDLL(None, use_errno=True)
      group = libc.fanotify_init(4, os.O_RDONLY)  # FAN_CLASS_CONTENT
      assert group >= 0, os.strerror(ctypes.get_errno())
      access = ctypes.c_uint64(0x20000)  # FAN_ACCESS_PERM
      assert libc.fanotify_mark(group, 1, access, -100, image.encode()) == 0, ctypes.get_errno()
      open("marked", "w")
      while not os.path.exists("hold"):
          if select.select([group], [], [], 0.01)[0]:
              for event in struct.iter_unpack("=IBBHQii", os.read(group, 24 * 64)):
                  os.write(group, struct.pack("=iI", event[5], 1))
                  os.close(event[5])
      h = nbd.NBD(); h.connect_uri(uri)
      buffer = nbd.Buffer(512)
      cookie = h.aio_pread(buffer, 0)
      while not select.select([group], [], [], 0.01)[0]:
          h.poll(10)
      os.mkfifo("leave")
      open("held", "w")
      open("leave").read()
      os.close(group)
      while not h.aio_command_completed(cookie): h.poll(-1)
      assert buffer.to_bytearray() == bytes([7]) * 512
      open("answered", "w")
      END
      /usr/bin/python3 holder.py '\(image)' '\(uri)' > holder.out 2>&1 & echo $! > holder.pid
      until [ -e marked ]; do kill -0 $! || { cat holder.out; exit 1; }; sleep 0.02; done
      """)
  }

  private func hold() throws {
    try Tool.shell(
      """
      cd '\(folder.path)'; touch hold
      until [ -e held ]; do kill -0 $(cat holder.pid) || { cat holder.out; exit 1; }; sleep 0.02; done
      """, seconds: 300)
  }

  private func letGo() throws {
    try Tool.shell(
      """
      cd '\(folder.path)'; echo now > leave
      until [ -e answered ]; do kill -0 $(cat holder.pid) || { cat holder.out; exit 1; }; sleep 0.02; done
      """, seconds: 300)
  }

  private func end() {
    _ = try? Tool.shell("kill -9 $(cat '\(folder.path)/holder.pid')", check: false)
    #expect(service.stop(until: .after(seconds: 120)))
  }

  private func state() async throws -> String {
    let device = try await service.device("vm")
    let files = try Tool.shell("cd '\(folder.path)/images/vm' && ls -A && cat DiskDescriptor.xml")
    return "\(device.revision) \(device.state) \(device.deltas.map(\.path)) \(files.output)"
  }

  @Test(
    "suspending and snapshots are refused with 503, and nothing is changed",
    arguments: [
      ("PATCH", "/v1/devices/vm", "{\"suspended\":true}"),
      ("POST", "/v1/devices/vm/snapshots", "{\"name\":\"x\"}"),
    ])
  func refused(method: String, target: String, body: String) async throws {
    try await create()
    defer { end() }
    try hold()
    let before = try await state()
    let reply = await ask(method, target, body)
    #expect(reply.status == 503 && reply.code == "drain-timeout", "\(reply)")
    let after = try await state()
    #expect(after == before, "\(before)\n->\n\(after)")
    try letGo()
    // It goes on as if nothing had been.
    try Tool.shell("qemu-io -f raw -c 'read -P 7 0 64k' '\(uri)' | grep -v 'verification failed'")
    let again = await ask(method, target, body)
    #expect([200, 201].contains(again.status), "\(again)")
  }

  @Test(
    "what drops clients is refused with 503 while one of their requests is inside, and the door stays",
    arguments: ["/v1/devices/vm?mode=hard", "/v1/exports/vm?mode=hard"])
  func dropped(target: String) async throws {
    try await create()
    defer { end() }
    try hold()
    let before = try await state()
    let reply = await ask("DELETE", target)
    #expect(reply.status == 503 && reply.code == "drain-timeout", "\(reply)")
    #expect(try await state() == before)
    // What was inside is answered all the same, and others come in.
    try letGo()
    try Tool.shell("qemu-io -f raw -c 'read -P 7 0 64k' '\(uri)' | grep -v 'verification failed'")
    #expect(await ask("DELETE", target).status == 204)
  }
}
