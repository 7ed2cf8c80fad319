/// Who is told of something, if anybody is; may change at any time.
///
/// The closure lies in a structure. By itself in a generic place, as in `Locked<(() -> Void)?>`, Swift wraps it once more
/// each time that it is looked at: after some ten thousand times a call of it overflows the stack of a thread.
package final class Observer<Event>: Sendable {
  private struct Held {
    var tell: (@Sendable (Event) -> Void)?
  }

  private let held = Locked(Held())

  package init() {}

  /// - Parameter tell: called on the thread of whoever has something to tell; nil for nobody.
  package func set(_ tell: (@Sendable (Event) -> Void)?) { held.withLock { $0.tell = tell } }

  package func tell(_ event: Event) {
    let tell = held.withLock { $0.tell }
    tell?(event)
  }
}
