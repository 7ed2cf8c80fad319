internal import PloopIO
internal import TestSupport

extension FolderStates {
  /// Looks at states behind each event: first with names that became durable in their order, then in any.
  ///
  /// - Parameters:
  ///   - initial: durable files by name.
  ///   - scratch: an empty folder, for the states.
  ///   - check: what is wrong with a state after so many events, in words.
  static func enumerate(
    _ watch: Watch, in folder: ImageFolder, initial: [String: [UInt8]] = [:],
    scratch: ImageFolder, _ bounds: Bounds, _ looks: Looks,
    check: (_ state: [String: [UInt8]], _ moment: Moment, _ scratch: ImageFolder) -> String?
  ) throws -> Enumeration.Result {
    var result = Enumeration.Result()
    let events = watch.trace.events
    let names = StateNames(initial: initial, events)
    var sizes = [4096, 512].map { blockBytes in
      (
        random: SeededGenerator(seed: bounds.seed &+ UInt64(blockBytes)),
        states: FolderStates(folder, initial: initial, blockBytes: blockBytes)
      )
    }
    for (position, event) in events.enumerated() {
      if looks.isEnough { break }
      var here: Set<UInt64> = []
      looks.advance(to: position, of: events.count)
      for index in sizes.indices {
        sizes[index].states.apply(event, at: position)
        let choices = sizes[index].states.choices
        for inOrder in [true, false] {
          var left = (bounds.samples + (inOrder ? 1 : 0)) / 2
          for _ in 0..<2 * left where left > 0 {
            let state = choices.sample(inOrder: inOrder, using: &sizes[index].random)
            let digest = names.digest(of: state)
            guard here.insert(digest).inserted else { continue }
            left -= 1
            guard looks.isWorthwhile(digest) else { continue }
            result.states += 1
            let moment = Moment(position: position + 1, namesInOrder: inOrder, looks: looks)
            if let fault = check(state, moment, scratch) {
              result.bad.append(
                "position \(position) \(event.summary), blocks of \(index == 0 ? 4096 : 512), seed \(bounds.seed): \(fault)"
              )
            }
          }
        }
      }
    }
    return result
  }
}

/// What is known of a state but its bytes.
struct Moment {
  /// How many events there were.
  let position: Int
  /// Whether names became durable in their order. Where they do not, a file may be left that nobody names;
  /// everything else holds all the same.
  let namesInOrder: Bool
  let looks: Looks
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
