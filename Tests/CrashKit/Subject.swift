internal import PloopFormat

/// Something that is recorded and of whose states all are looked at, by a name that it keeps: failing seeds are written
/// down with it.
package struct Subject: Sendable {
  package let name: String
  /// States behind each event and by each size of blocks, in the short form; and in each further round of the long one,
  /// the more the less time they take.
  package let samples: (first: Int, further: Int)
  private let body:
    @Sendable (_ scratch: ScratchFolder, _ bounds: Bounds, _ looks: Looks) throws
      -> Enumeration.Result

  /// Records it anew and looks at its states.
  ///
  /// - Parameter samples: behind each event and by each size of blocks.
  package func enumerate(
    seed: UInt64, samples: Int, _ looks: Looks = Looks()
  ) throws -> Enumeration.Result {
    try body(ScratchFolder(), Bounds(samples: samples, seed: seed), looks)
  }

  private static func disk(_ scenario: Scenario) -> Subject {
    Subject(name: "disk: \(scenario.rawValue)", samples: (48, 576)) {
      scratch, bounds, looks in
      let recording = try Recording(path: scratch.folder("recording"), scenario.setup)
      try scenario.run(recording, seed: bounds.seed)
      var result = try Enumeration(recording, path: scratch.folder("states")).run(bounds, looks)
      result.bad += recording.problems
      return result
    }
  }

  private static func chain(
    _ name: String, _ scenario: @escaping @Sendable (_ seed: UInt64) -> ChainScenario
  ) -> Subject {
    Subject(name: "chain: \(name)", samples: (10, 20)) { scratch, bounds, looks in
      let scenario = scenario(bounds.seed)
      let recording = try scenario.recording(path: scratch.folder("recording"))
      try scenario.run(recording)
      return try recording.enumerate(path: scratch.folder("states"), bounds, looks)
    }
  }

  private static func copy(
    _ name: String,
    _ body:
      @escaping @Sendable (_ recording: String, _ states: String, Bounds, Looks) throws
      -> Enumeration.Result
  ) -> Subject {
    Subject(name: "copy: \(name)", samples: (8, 16)) { scratch, bounds, looks in
      try body(scratch.folder("recording"), scratch.folder("states"), bounds, looks)
    }
  }

  /// Those that take longest come first.
  package static let all: [Subject] =
    [chain("changes at random") { .random(seed: $0) }]
    + ChainScenario.all.map { scenario in chain(scenario.name) { _ in scenario } }
    + [
      copy("points of backups") { path, states, bounds, looks in
        let recording = try BackupRecording(path: path)
        try recording.run()
        return try recording.enumerate(path: states, bounds, looks)
      }
    ]
    + SinglePointRecording.Kind.allCases.map { kind in
      copy("backups in one place, \(kind.rawValue)") { path, states, bounds, looks in
        let recording = try SinglePointRecording(path: path, kind)
        try recording.run()
        return try recording.enumerate(path: states, bounds, looks)
      }
    }
    + ([(.v1, "1"), (.v2, "2")] as [(ImageVersion, String)]).map { version, name in
      copy("the image of a restore, version \(name)") { path, states, bounds, looks in
        let recording = try FileRecording(path: path, version)
        try recording.run()
        return try recording.enumerate(path: states, bounds, looks)
      }
    }
    + [
      copy("forced repair") { path, states, bounds, looks in
        let recording = try RepairRecording(path: path)
        try recording.run()
        return try recording.enumerate(path: states, bounds, looks)
      },
      copy("hashes") { path, states, bounds, looks in
        let recording = try HashRecording(path: path)
        try recording.run()
        return try recording.enumerate(path: states, bounds, looks)
      },
    ]
    + Scenario.allCases.map(disk)
}
