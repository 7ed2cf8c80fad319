import PloopIO
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("Metrics as text")
struct MetricsTextTests {
  private func text(_ metrics: [Metric]) -> String {
    String(decoding: MetricsText.encode(metrics), as: UTF8.self)
  }

  @Test("a value has a line of its own, with its labels, under one head")
  func values() {
    let metric = Metric(
      .gauge, "ploopd_disk_bytes", "What it takes.",
      [.init(.number(5_000_000_000), [("device", "a"), ("layer", "top")]), .init(.number(0.25))])
    #expect(
      text([metric, Metric(.counter, "ploopd_none_total", "Has no value.", [])]) == """
        # HELP ploopd_disk_bytes What it takes.
        # TYPE ploopd_disk_bytes gauge
        ploopd_disk_bytes{device="a",layer="top"} 5000000000
        ploopd_disk_bytes 0.25

        """)
  }

  @Test("what has a meaning in the format is escaped")
  func escapes() {
    let metric = Metric(
      .gauge, "x", "a\\b\n\"c\"", [.init(.number(1), [("name", "a\\b\n\"c\"")])])
    #expect(
      text([metric])
        == "# HELP x a\\\\b\\n\"c\"\n# TYPE x gauge\nx{name=\"a\\\\b\\n\\\"c\\\"\"} 1\n")
  }

  @Test("a histogram adds up its buckets")
  func histogram() {
    let times = Metric.Histogram(boundaries: [0.00005, 1], counts: [3, 2, 1], sum: 4.5)
    #expect(
      text([Metric(.histogram, "t_seconds", "T.", [.init(.histogram(times), [("op", "read")])])])
        == """
        # HELP t_seconds T.
        # TYPE t_seconds histogram
        t_seconds_bucket{op="read",le="5e-05"} 3
        t_seconds_bucket{op="read",le="1"} 5
        t_seconds_bucket{op="read",le="+Inf"} 6
        t_seconds_sum{op="read"} 4.5
        t_seconds_count{op="read"} 6

        """)
  }

  @Test("requests are counted by the template of their route")
  func traffic() async throws {
    let router = Router(try FakeService(devices: ["vm1", "vm2"]))
    func ask(_ method: String, _ target: String) async -> HTTPReply {
      await router.answer(
        HTTPRequest(method: method, target: target.utf8, headers: [("Host", "localhost")]),
        requestID: "r")
    }
    for target in ["/v1/devices/vm1", "/v1/devices/vm2", "/v1/devices/vm3", "/nowhere/\"x"] {
      _ = await ask("GET", target)
    }
    _ = await ask("BREW", "/v1/devices")
    let reply = await ask("GET", "/metrics")
    #expect(reply.contentType == "text/plain; version=0.0.4; charset=utf-8")
    let lines = String(decoding: try #require(reply.bytes), as: UTF8.self).split(separator: "\n")
    for line in [
      #"ploopd_http_requests_total{route="/v1/devices/{id}",method="GET",code="200"} 2"#,
      #"ploopd_http_requests_total{route="/v1/devices/{id}",method="GET",code="404"} 1"#,
      #"ploopd_http_requests_total{route="none",method="GET",code="404"} 1"#,
      #"ploopd_http_requests_total{route="/v1/devices",method="other",code="405"} 1"#,
      #"ploopd_http_request_seconds_count{route="/v1/devices/{id}"} 3"#,
      "ploopd_event_clients 0", "ploopd_ready 1",
    ] { #expect(lines.contains(Substring(line)), "\(line)") }
  }
}
