/// How a suite is run.
package struct SuiteSettings: Sendable {
  /// Where images are made, in a folder that is removed in the end.
  package var folder = "/tmp"
  package var program: String
  /// A ploopd to compare with, instead of other peers.
  package var base: String?
  package var rounds = 5
  package var seconds = 1.0
  package var diskBytes = 4 << 30
  /// The working set; the disk is filled to twice of it.
  package var spanBytes = 1 << 30
  /// How many devices a service has that is asked for their list.
  package var devices = 1_000
  /// Ids of the rows to measure; nil for all.
  package var rows: Set<String>?
  /// Peers to measure; nil for all.
  package var peers: Set<Peer>?

  package init(program: String) { self.program = program }

  var programs: [Peer: String] {
    var programs: [Peer: String] = [.ploopd: program]
    programs[.base] = base
    return programs
  }

  /// About a minute for all rows: shows that everything works, and not much about speed.
  package mutating func makeSmall() {
    (rounds, seconds, diskBytes, spanBytes) = (1, 0.1, 1 << 30, 256 << 20)
    devices = 50
  }

  package func validate() throws(BenchFailure) {
    guard (1...20).contains(rounds), seconds > 0, seconds <= 60 else {
      throw BenchFailure("rounds are 1 to 20, seconds more than 0 and at most 60")
    }
    guard (1...1_000).contains(devices) else {
      throw BenchFailure("a list has 1 to 1000 devices")
    }
    guard spanBytes >= 64 << 20, 2 * spanBytes <= diskBytes, diskBytes % (1 << 20) == 0 else {
      throw BenchFailure("a working set is at least 64 MiB, and at most half of the disk")
    }
    if let wrong = rows?.subtracting(Suite.rowIDs).sorted().first {
      throw BenchFailure("no row \(wrong); there are \(Suite.rowIDs.joined(separator: ", "))")
    }
  }
}
