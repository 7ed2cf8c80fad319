/// What a suite has measured, as it is written to a file. Nothing derived is in it.
package struct Report: Codable, Sendable, Equatable {
  /// The machine and the programs, in words.
  package var machine: [String]
  package var settings: [String]
  package var rows: [Row]

  package init(machine: [String], settings: [String], rows: [Row]) {
    self.machine = machine
    self.settings = settings
    self.rows = rows
  }

  /// One kind of work, done by several contenders.
  package struct Row: Codable, Sendable, Equatable {
    package var id: String
    package var title: String
    /// Of the samples' values.
    package var unit: String
    package var goals: [Goal]
    package var contenders: [Measured]

    package init(
      id: String, title: String, unit: String, goals: [Goal], contenders: [Measured]
    ) {
      self.id = id
      self.title = title
      self.unit = unit
      self.goals = goals
      self.contenders = contenders
    }
  }

  package struct Measured: Codable, Sendable, Equatable {
    package var name: String
    /// One of each round.
    package var samples: [Sample]

    package init(name: String, samples: [Sample]) {
      self.name = name
      self.samples = samples
    }
  }

  package struct Sample: Codable, Sendable, Equatable {
    package var value: Double
    /// Microseconds.
    package var p50: Double?
    package var p99: Double?
    /// The server's processor time for one operation, in microseconds.
    package var serverMicroseconds: Double?

    package init(
      value: Double, p50: Double? = nil, p99: Double? = nil, serverMicroseconds: Double? = nil
    ) {
      self.value = value
      self.p50 = p50
      self.p99 = p99
      self.serverMicroseconds = serverMicroseconds
    }
  }

  /// A bound for the ratio of two contenders' values, round by round.
  package struct Goal: Codable, Sendable, Equatable {
    package var of: String
    package var against: String
    package var ratio: Double
    /// The ratio is to be at most this, not at least.
    package var atMost: Bool

    package init(
      of: String = Peer.ploopd.rawValue, against: String, ratio: Double, atMost: Bool = false
    ) {
      self.of = of
      self.against = against
      self.ratio = ratio
      self.atMost = atMost
    }
  }
}

/// A median and how far the rounds lie apart.
package struct Spread: Sendable, Equatable {
  package let median: Double
  package let least: Double
  package let most: Double

  /// - Returns: nil for no values.
  package init?(_ values: [Double]) {
    let sorted = values.sorted()
    guard let first = sorted.first, let last = sorted.last else { return nil }
    let middle = sorted.count / 2
    median = sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    (least, most) = (first, last)
  }
}

extension Report.Row {
  package func samples(_ name: String) -> [Report.Sample] {
    contenders.first { $0.name == name }?.samples ?? []
  }

  /// Ratios of the same round, so that what disturbs a round disturbs both.
  ///
  /// - Returns: nil when one of the two was not measured.
  package func ratio(of: String, against: String) -> Spread? {
    Spread(
      zip(samples(of), samples(against)).compactMap { one, other in
        other.value > 0 ? one.value / other.value : nil
      })
  }

  /// Whether the median of ratios is within a goal; nil when it was not measured.
  package func isReached(_ goal: Report.Goal) -> Bool? {
    ratio(of: goal.of, against: goal.against).map {
      goal.atMost ? $0.median <= goal.ratio : $0.median >= goal.ratio
    }
  }

  /// What a goal is about: the row, and who, where it is not ploopd itself.
  package func title(_ goal: Report.Goal) -> String {
    let isPlain = goal.of == Peer.ploopd.rawValue || title.contains("chain")
    return isPlain ? title : "\(title), \(goal.of)"
  }
}
