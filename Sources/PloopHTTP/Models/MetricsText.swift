internal import PloopControl

/// Metrics as collectors read them: the text format of Prometheus, version 0.0.4.
enum MetricsText {
  static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  static func encode(_ metrics: [Metric]) -> [UInt8] {
    var text = ""
    for metric in metrics where !metric.samples.isEmpty {
      text += "# HELP \(metric.name) \(escaped(metric.help, quoted: false))\n"
      text += "# TYPE \(metric.name) \(metric.kind.rawValue)\n"
      for sample in metric.samples { append(sample, of: metric.name, to: &text) }
    }
    return Array(text.utf8)
  }

  private static func append(_ sample: Metric.Sample, of name: String, to text: inout String) {
    switch sample.value {
    case .number(let value): text += line(name, sample.labels, value)
    case .histogram(let histogram):
      var sum: UInt64 = 0
      let edges = histogram.boundaries.map(number) + ["+Inf"]
      for (edge, count) in zip(edges, histogram.counts) {
        sum += count
        text += line("\(name)_bucket", sample.labels + [("le", edge)], Double(sum))
      }
      text += line("\(name)_sum", sample.labels, histogram.sum)
      text += line("\(name)_count", sample.labels, Double(sum))
    }
  }

  private static func line(_ name: String, _ labels: Metric.Labels, _ value: Double) -> String {
    let pairs = labels.map { "\($0.name)=\"\(escaped($0.value, quoted: true))\"" }
    let braces = pairs.isEmpty ? "" : "{\(pairs.joined(separator: ","))}"
    return "\(name)\(braces) \(number(value))\n"
  }

  /// Whole numbers without a fraction, as people expect counts to be.
  private static func number(_ value: Double) -> String {
    if let whole = Int64(exactly: value) { return String(whole) }
    return value.isNaN ? "NaN" : value.isInfinite ? (value > 0 ? "+Inf" : "-Inf") : "\(value)"
  }

  private static func escaped(_ text: String, quoted: Bool) -> String {
    var result = ""
    for character in text.unicodeScalars {
      switch character {
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\"" where quoted: result += "\\\""
      default: result.unicodeScalars.append(character)
      }
    }
    return result
  }
}
