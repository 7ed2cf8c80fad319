internal import PloopIO
internal import TestSupport

extension FolderStates {
  /// Looks at states behind each event (``ChainRecording/enumerate(path:_:share:of:)``), with names that became
  /// durable in their order, and in any.
  ///
  /// - Parameters:
  ///   - initial: durable files by name.
  ///   - path: an empty folder, for the states.
  ///   - check: what is wrong with a state after so many events, in words.
  static func enumerate(
    _ watch: Watch, in folder: ImageFolder, initial: [String: [UInt8]] = [:], path: String,
    _ bounds: ChainRecording.Bounds,
    check: (_ state: [String: [UInt8]], _ position: Int, _ scratch: ImageFolder) -> String?
  ) throws -> Enumeration.Result {
    var result = Enumeration.Result()
    let scratch = try ImageFolder(path: path)
    for blockBytes in [4096, 512] {
      var random = SeededGenerator(seed: bounds.seed &+ UInt64(blockBytes))
      var states = FolderStates(folder, initial: initial, blockBytes: blockBytes)
      for (position, event) in watch.trace.events.enumerated() {
        states.apply(event, at: position)
        for number in 0..<bounds.samples {
          result.states += 1
          let state = states.sample(inOrder: number % 2 == 0, using: &random)
          if let fault = check(state, position + 1, scratch) {
            result.bad.append(
              "position \(position) \(event.summary), blocks of \(blockBytes), seed \(bounds.seed): \(fault)"
            )
          }
        }
      }
    }
    return result
  }
}

extension Watch {
  /// How many calls `body` makes.
  func countCalls(_ body: () throws -> Void) rethrows -> Int {
    let count = Locked(0)
    use { number, _ in
      count.withLock { $0 = number + 1 }
      return nil
    }
    try body()
    return count.withLock { $0 }
  }
}
