import BenchKit
import Foundation
import Testing

@Suite("The report")
struct ReportTests {
  private let report = Report(
    machine: ["a machine"], settings: ["3 rounds"],
    rows: [
      Report.Row(
        id: "read-1", title: "reads", unit: "op/s",
        goals: [
          Report.Goal(against: "qemu-nbd", ratio: 1.5), Report.Goal(against: "nbdkit", ratio: 1),
          Report.Goal(against: "nobody", ratio: 1),
        ],
        contenders: [
          measured("ploopd", [200, 300, 1000.4]), measured("qemu-nbd", [100, 200, 250]),
          measured("nbdkit", [400, 250, 2000]),
        ]),
      Report.Row(
        id: "cpu", title: "CPU", unit: "s/GiB",
        goals: [Report.Goal(against: "qemu-nbd", ratio: 0.4, atMost: true)],
        contenders: [measured("ploopd", [0.125]), measured("qemu-nbd", [1.2])]),
    ])

  private static func measured(_ name: String, _ values: [Double]) -> Report.Measured {
    Report.Measured(
      name: name, samples: values.map { Report.Sample(value: $0, p50: 12.34, p99: 1234.5) })
  }

  @Test("goals are judged by the median of each round's own ratio")
  func goals() {
    #expect(
      Table.goals(report) == """
        | what | ploopd | against | ratio | rounds | goal | |
        |---|---|---|---|---|---|---|
        | reads | 300 op/s | qemu-nbd | 2.00 | 1.50 … 4.00 | ≥ 1.50 | pass |
        | reads | 300 op/s | nbdkit | 0.50 | 0.50 … 1.20 | ≥ 1.00 | **short** |
        | CPU | 0.13 s/GiB | qemu-nbd | 0.10 | 0.10 … 0.10 | ≤ 0.40 | pass |

        """)
  }

  @Test("everything that was measured is listed")
  func everything() {
    #expect(
      Table.everything(report).hasSuffix(
        """
        | CPU | ploopd | 0.13 s/GiB | 0.13 … 0.13 | 12.3 | 1,235 |  |
        | CPU | qemu-nbd | 1.20 s/GiB | 1.20 … 1.20 | 12.3 | 1,235 |  |

        """))
  }

  @Test("the same JSON makes the same page and the same picture")
  func deterministic() throws {
    let data = try JSONEncoder().encode(report)
    let again = try JSONDecoder().decode(Report.self, from: data)
    #expect(again == report)
    #expect(Table.document(again) == Table.document(report))
    #expect(Chart.svg(again) == Chart.svg(report))
    #expect(Table.document(report).contains("- a machine\n- 3 rounds\n"))
  }

  @Test("the picture is well-formed, with a bar for each goal that was measured")
  func picture() throws {
    let parser = XMLCheck(Chart.svg(report))
    #expect(parser.isBalanced)
    #expect(parser.count(of: "rect") == 1 + 3)
  }
}

/// Enough of XML to see that every element is closed.
private struct XMLCheck {
  private let tags: [Substring]

  init(_ text: String) {
    tags = text.split(separator: "<").map { $0.prefix { $0 != ">" } }
  }

  var isBalanced: Bool {
    var open: [Substring] = []
    for tag in tags where !tag.hasSuffix("/") {
      if tag.hasPrefix("/") {
        guard open.popLast() == tag.dropFirst() else { return false }
      } else {
        open.append(tag.prefix { $0 != " " })
      }
    }
    return open.isEmpty
  }

  func count(of name: String) -> Int { tags.count { $0.hasPrefix("\(name) ") } }
}
