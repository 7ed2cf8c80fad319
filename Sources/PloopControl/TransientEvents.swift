internal import PloopIO

/// Events that are told to whoever listens now and are not kept: how far something has come.
///
/// There is a place for the newest of each type and subject, so whoever listens slowly misses old
/// ones, and nothing grows.
final class TransientEvents: Sendable {
  private struct Place {
    var event: Event
    var number: UInt64
    /// Nanoseconds on the monotonic clock.
    var told: UInt64
  }

  private struct Key: Hashable {
    let type: String
    let subject: String
  }

  private struct State {
    var places: [Key: Place] = [:]
    var last: UInt64 = 0
  }

  private static let betweenNanoseconds: UInt64 = 1_000_000_000
  /// Whoever has not looked for that long has missed it.
  private static let keptNanoseconds: UInt64 = 30_000_000_000

  private let state = Locked(State())

  /// - Parameters:
  ///   - isLimited: whether it is dropped when the last of its type and subject is not a second old.
  ///   - now: nanoseconds on the monotonic clock.
  /// - Returns: false when it was dropped.
  func publish(
    _ event: Event, isLimited: Bool = true, now: UInt64 = monotonicNanoseconds()
  ) -> Bool {
    let key = Key(type: event.type, subject: event.subject)
    return state.withLock { state in
      if isLimited, let place = state.places[key],
        now < place.told + TransientEvents.betweenNanoseconds
      {
        return false
      }
      state.places = state.places.filter {
        now < $0.value.told + TransientEvents.keptNanoseconds
      }
      state.last += 1
      state.places[key] = Place(event: event, number: state.last, told: now)
      return true
    }
  }

  /// How many there were.
  var last: UInt64 { state.withLock { $0.last } }

  /// What was published behind the cursor, oldest first, and the next cursor.
  func events(after cursor: UInt64, matching filter: EventFilter) -> ([Event], UInt64) {
    let (places, last) = state.withLock {
      ($0.places.values.filter { $0.number > cursor }, $0.last)
    }
    let events = places.sorted { $0.number < $1.number }.map(\.event).filter(filter.matches)
    return (events, last)
  }

  /// Publishes what it is called with, as of now and of whoever asks, and wakes those who wait for events.
  func teller(
    waking waiting: WaitingRoom
  ) -> @Sendable (_ type: EventType, _ subject: String, _ device: String?) -> Void {
    { [self] type, subject, device in
      let event = Event(
        revision: nil, at: wallClockSeconds(), type: type.rawValue, subject: subject,
        device: device,
        actor: Requester.name)
      if publish(event, isLimited: type.isRepeated) { waiting.changed([.events]) }
    }
  }
}
