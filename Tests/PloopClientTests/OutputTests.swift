import PloopJSON
import TestSupport
import Testing

@testable import PloopClient

@Suite("What ploopctl prints")
struct OutputTests {
  private static func json(_ text: String) throws -> JSON { try JSONParser.parse(Array(text.utf8)) }

  @Test("figures have the units that people read")
  func units() {
    #expect(Units.bytes(0) == "0 bytes" && Units.bytes(1_610_612_736) == "1.5 GiB")
    #expect(Units.exactBytes(1 << 30) == "1 GiB (1073741824 bytes)" && Units.bytes(-1) == "0 bytes")
    #expect(Units.duration(0) == "0 s" && Units.duration(59) == "59 s")
    #expect(Units.duration(245) == "4 min 5 s" && Units.duration(3600) == "1 h")
    #expect(Units.duration(183_600) == "2 d 3 h" && Units.duration(-5) == "0 s")
    #expect(Units.time("2026-11-26T12:00:00.000Z") == "2026-11-26 12:00:00Z")
    #expect(Units.time("soon") == "soon")
    #expect(Units.percent(1, of: 0) == 0 && Units.percent(1, of: 3) == 33)
    #expect(Units.percent(5, of: 3) == 100 && Units.percent(-1, of: 3) == 0)
  }

  @Test("a table is as wide as its cells, or as the terminal")
  func table() throws {
    let rows = [
      try Self.json(#"{"id":"vm1","size":1073741824,"exports":[{"name":"a"},{"name":"b"}]}"#),
      try Self.json(#"{"id":"a-device-with-a-long-name","size":1,"exports":[]}"#),
    ]
    let table = Table(
      columns: [
        Column("DEVICE", "id"), Column("SIZE", "size", .bytes),
        Column("EXPORTS", "exports", .names("name")), Column("NONE", "a.b"),
      ], rows: rows)
    #expect(
      table.lines(width: nil) == [
        "DEVICE                        SIZE  EXPORTS  NONE",
        "vm1                          1 GiB  a,b      -",
        "a-device-with-a-long-name  1 bytes  -        -",
      ])
    let narrow = table.lines(width: 40)
    #expect(narrow.allSatisfy { $0.count <= 40 } && narrow[2].hasPrefix("a-device-with-a…"))
    // What cannot be shorter is not.
    #expect(table.lines(width: 1).count == 3)
  }

  @Test("what comes from files and other people is no command to the terminal")
  func safety() throws {
    #expect(Terminal.safe("äöü vm-1") == "äöü vm-1")
    #expect(Terminal.safe("a\u{1B}[2Jb\n\u{9B}\u{7F}") == "a\\u{1b}[2Jb\\u{a}\\u{9b}\\u{7f}")
    #expect(Terminal.safe("a\u{202E}b") == "a\\u{202e}b")
    let value = try Self.json(
      #"{"a\u001b":"\u001b[1m","list":[{"b\u001b":"\u001b"}],"x":["\u001b"]}"#)
    #expect(!Details(value: value).lines(width: nil).joined().contains("\u{1B}"))
    let fault = ClientFault(.other, problem: try Self.json(#"{"detail":"\u001b"}"#))
    #expect(fault.lines.map(Terminal.safe) == ["\\u{1b}"])
  }

  @Test("details name every member, nested ones beneath it, lists as tables")
  func details() throws {
    let value = try Self.json(
      #"{"id":"vm1","size":1024,"none":null,"on":true,"clusters":{"total":7},"deltas":[{"level":0,"path":"a"},{"level":1,"path":"bc"}],"tags":[]}"#
    )
    #expect(
      Details(value: value).lines(width: nil) == [
        "id:   vm1", "size: 1 KiB (1024 bytes)", "none: -", "on:   yes", "clusters:", "  total: 7",
        "deltas:", "  level  path", "  0      a", "  1      bc", "tags: -",
      ])
  }

  private static func job(_ state: String, _ done: Int64, _ more: String = "") throws -> JSON {
    try json(
      #"{"type":"merge","device":"vm1","state":"\#(state)","phase":"copying","progress":{"done_bytes":\#(done),"total_bytes":104857600,"rate_bps":1048576,"eta_seconds":90}\#(more)}"#
    )
  }

  @Test(
    "whoever reads the progress of a job later has a line for each step, on a terminal it is one line"
  )
  func progress() throws {
    var lines: [String] = []
    var display = JobDisplay(isTerminal: false, width: 80) { lines.append($0) }
    for done in 0...100 { display.show(try Self.job("running", Int64(done) << 20)) }
    display.show(try Self.job("succeeded", 100 << 20))
    display.end()
    #expect(lines.count == 12)
    #expect(
      lines[5] == "merge vm1: running, copying 50 %, 50 MiB of 100 MiB, 1 MiB/s, 1 min 30 s left\n")
    #expect(lines[11].contains("succeeded"))

    lines = []
    display = JobDisplay(isTerminal: true, width: 60) { lines.append($0) }
    display.show(try Self.job("running", 50 << 20))
    display.show(
      try Self.job("paused", 50 << 20, #","stalled":true,"waiting_for":[{"detail":"no room"}]"#))
    display.end()
    #expect(lines.count == 3 && lines[2] == "\n")
    #expect(lines[0].hasPrefix("\rmerge vm1: running, copying [###############....."))
    #expect(lines[0].hasSuffix("\u{1B}[K") && lines[0].count == 59 + 4)
    #expect(lines[1].contains("paused, copying, stalled (no room)"))
    // Nobody knows how much there is.
    lines = []
    display = JobDisplay(isTerminal: false, width: 80) { lines.append($0) }
    display.show(try Self.json(#"{"type":"check","state":"queued","progress":{"total_bytes":0}}"#))
    display.show(try Self.json(#"{"type":"check","state":"queued"}"#))
    #expect(lines == ["check: queued\n"])
  }

  @Test("events come in pieces of any size")
  func events() {
    let text =
      "retry: 2000\nid: 40\n\n: nothing\n\nid: 41\nevent: a.b\ndata: {\"é\":\ndata:1}\n\ndata: x\n\n"
    let expected = [
      EventParser.Event(type: "a.b", data: "{\"é\":\n1}"), EventParser.Event(type: "", data: "x"),
    ]
    for size in [1, 2, 7, 1000] {
      var parser = EventParser()
      var events: [EventParser.Event] = []
      var rest = Array(text.utf8)[...]
      while !rest.isEmpty {
        events += parser.take(rest.prefix(size))
        rest = rest.dropFirst(size)
      }
      #expect(events == expected && parser.lastID == "41")
    }
  }
}
