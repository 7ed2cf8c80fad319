internal import PloopIO

/// Seeds with which an enumeration has once found something, in a file that only ever grows: all of them are looked at
/// by every `make test`.
package struct FailedSeeds: Sendable {
  package struct Line: Sendable, CustomStringConvertible {
    package let seed: UInt64
    package let samples: Int
    package let subject: String

    package init(seed: UInt64, samples: Int, subject: String) {
      self.seed = seed
      self.samples = samples
      self.subject = subject
    }

    package var description: String { "\(seed) \(samples) \(subject)" }

    /// Records the subject once more and looks at its states.
    ///
    /// - Returns: nil when nobody knows the subject any more.
    package func enumerate() throws -> Enumeration.Result? {
      try Subject.all.first { $0.name == subject }?.enumerate(seed: seed, samples: samples)
    }
  }

  package let lines: [Line]
  private let folder: ImageFolder
  private let name: String

  /// Reads a file of lines `SEED SAMPLES SUBJECT`; what follows a `#` is for people.
  ///
  /// - Throws: `NotASeed` for any other line; whatever keeps the file from being read.
  package init(_ path: String) throws {
    let parts = path.split(separator: "/")
    folder = try ImageFolder(
      path: (path.hasPrefix("/") ? "/" : "./") + parts.dropLast().joined(separator: "/"))
    name = parts.last.map(String.init) ?? ""
    let text = String(decoding: try folder.bytes(of: name, limit: 1 << 20), as: UTF8.self)
    lines = try text.split(separator: "\n").compactMap { line in
      let line = line.prefix { $0 != "#" }
      let words = line.split(separator: " ", maxSplits: 2)
      guard !words.isEmpty else { return nil }
      guard words.count == 3, let seed = UInt64(words[0]), let samples = Int(words[1]), samples > 0
      else { throw NotASeed(line: String(line)) }
      var subject = String(words[2])
      while subject.last == " " { subject.removeLast() }
      return Line(seed: seed, samples: samples, subject: subject)
    }
  }

  package struct NotASeed: Error {
    let line: String
  }

  /// Adds a seed, durably, unless it is there.
  ///
  /// - Parameter why: for people.
  package func add(_ new: Line, why: String) throws {
    guard !lines.contains(where: { $0.description == new.description }) else { return }
    let before = try folder.bytes(of: name, limit: 1 << 20)
    let reason = why.split(separator: "\n").first.map { String($0.prefix(200)) } ?? ""
    try folder.replace(name, with: before + Array("\(new) # \(reason)\n".utf8), mode: 0o644)
  }
}
