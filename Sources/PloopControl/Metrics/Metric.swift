/// Something that is measured: a name, what it means, and a value for each set of labels.
///
/// Names are in base units (seconds, bytes) and say theirs last; counters end with `_total`, never go
/// back but with what they count, and are 0 again in the next life of the service.
package struct Metric: Sendable {
  package enum Kind: String, Sendable { case counter, gauge, histogram }

  package typealias Labels = [(name: String, value: String)]

  package enum Value: Sendable {
    case number(Double)
    case histogram(Histogram)
  }

  /// How often a time lay between two boundaries.
  package struct Histogram: Sendable {
    /// Upper edges, in seconds, ascending.
    package var boundaries: [Double]
    /// One for each edge, and one for all beyond.
    package var counts: [UInt64]
    /// Seconds, of all together.
    package var sum: Double

    package init(boundaries: [Double], counts: [UInt64], sum: Double) {
      self.boundaries = boundaries
      self.counts = counts
      self.sum = sum
    }

    /// Of nothing yet.
    package init(_ boundaries: [Double]) {
      self.init(
        boundaries: boundaries, counts: [UInt64](repeating: 0, count: boundaries.count + 1), sum: 0)
    }

    package mutating func count(seconds: Double) {
      counts[boundaries.firstIndex { seconds <= $0 } ?? boundaries.count] += 1
      sum += seconds
    }
  }

  package struct Sample: Sendable {
    package var labels: Labels
    package var value: Value

    package init(_ value: Value, _ labels: Labels = []) {
      self.labels = labels
      self.value = value
    }
  }

  package let kind: Kind
  package let name: String
  package let help: String
  package let samples: [Sample]

  package init(_ kind: Kind, _ name: String, _ help: String, _ samples: [Sample]) {
    self.kind = kind
    self.name = name
    self.help = help
    self.samples = samples
  }

  /// With one value, and no labels.
  package init(_ kind: Kind, _ name: String, _ help: String, _ value: Double) {
    self.init(kind, name, help, [Sample(.number(value))])
  }
}

extension Metric.Sample {
  init(_ value: Double, _ labels: Metric.Labels = []) { self.init(.number(value), labels) }
  init(_ value: UInt64, _ labels: Metric.Labels = []) { self.init(Double(value), labels) }
  init(_ value: Int, _ labels: Metric.Labels = []) { self.init(Double(value), labels) }
  init(_ isSo: Bool, _ labels: Metric.Labels = []) { self.init(isSo ? 1.0 : 0, labels) }
}
