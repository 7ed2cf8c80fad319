import Foundation
import TestSupport
import Testing

@Suite("Limits of NBD clients")
struct ThrottleTests {
  @Test(
    "PATCH slows clients down and lets them go at once, a restart keeps what it says, and a stop or a DELETE waits for nobody"
  )
  func patch() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 16 << 20).status == 201)
    // So slow that nothing but a change lets the second read through.
    let slow = try service.patch(
      "/v1/devices/vm", #"{"throttle":{"read_bps":1,"burst_seconds":5}}"#)
    let rates = slow.json["throttle"] as? [String: Int]
    #expect(slow.status == 200 && rates?["read_bps"] == 1 && rates?["burst_seconds"] == 5)
    #expect(rates?["write_iops"] == 0)
    // What is not named stays, null is no limit, and a service that is told of none has none.
    let more = try service.patch("/v1/devices/vm", #"{"throttle":{"write_iops":9}}"#)
    #expect((more.json["throttle"] as? [String: Int])?["write_iops"] == 9)
    let same = try service.patch("/v1/devices/vm", #"{"throttle":{"write_iops":null}}"#)
    #expect(same.json["throttle"] as? [String: Int] == rates)
    #expect(try service.end() == 0)
    try service.start()
    let kept = try service.get("/v1/devices/vm").json["throttle"] as? [String: Int]
    #expect(kept == rates)
    try Tool.shell(
      """
      cd '\(folder.path)' && cat > read.py <<'END'
      import nbd
      h = nbd.NBD(); h.connect_uri('\(service.uri("vm"))')
      h.pwrite(b'x' * 65536, 0)
      h.pread(65536, 0)
      open('first', 'w')
      h.pread(65536, 0)
      open('second', 'w')
      h.shutdown()
      END
      /usr/bin/python3 read.py > out 2>&1 &
      until test -e first; do kill -0 $! || { cat out; exit 1; }; sleep 0.02; done
      """, seconds: 120)
    #expect(try service.patch("/v1/devices/vm", #"{"throttle":{"read_bps":-1}}"#).status == 400)
    #expect(try service.patch("/v1/devices/vm", #"{"throttle":{"burst_seconds":0}}"#).status == 400)
    #expect(try Tool.shell("test -e '\(folder.path)/second'", check: false).status != 0)
    let free = try service.patch("/v1/devices/vm", #"{"throttle":null}"#)
    #expect(free.status == 200 && free.json["throttle"] is NSNull)
    try Tool.shell("until test -e '\(folder.path)/second'; do sleep 0.02; done", seconds: 120)
    let none = try service.patch(
      "/v1/devices/vm", #"{"throttle":{"read_bps":0,"burst_seconds":7}}"#)
    #expect(none.status == 200 && none.json["throttle"] is NSNull)
    #expect(try service.patch("/v1/devices/vm", #"{"throttle":{"read_bps":1}}"#).status == 200)
    try startThrottledClient(folder, service.uri("vm"))
    #expect(try service.end() == 0)
    try service.start()
    try startThrottledClient(folder, service.uri("vm"))
    #expect(try service.delete("/v1/devices/vm?mode=hard").status == 204)
    #expect(try service.end() == 0)
  }

  /// One whose second read is under way, for most of a day, until its connection ends.
  private func startThrottledClient(_ folder: TemporaryFolder, _ uri: String) throws {
    try startClient(
      folder, uri,
      """
      h.pread(65536, 0)
      h.flush()
      h.aio_pread(nbd.Buffer(65536), 0)
      while h.aio_get_direction() & nbd.AIO_DIRECTION_WRITE: h.poll(-1)
      open('in', 'w')
      while not h.aio_is_closed() and not h.aio_is_dead(): h.poll(-1)
      """)
  }
}
