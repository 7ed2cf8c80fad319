internal import PloopIO

extension Service {
  /// Events of the ring behind a cursor, oldest first: none is left out, and none comes later with a
  /// smaller revision than the page's.
  ///
  /// - Parameter after: the page's revision before, or nil for all that are kept.
  /// - Throws: `events-expired` when the cursor is older than the ring.
  package func events(
    after: UInt64?, matching filter: EventFilter, limit: Int
  ) async throws(ServiceError) -> Page<Event> {
    try await clerk.run { [store] () throws(ServiceError) in
      // Asked before the database is: whatever is shown by then is in it.
      let shown = store.shownRevision
      return try store.read { transaction throws(ServiceError) in
        try transaction.events(after: after, through: shown, matching: filter, limit: limit)
      }
    }
  }

  /// Where whoever wants to hear only of what is to come begins.
  package var eventCursor: EventCursor {
    EventCursor(revision: store.shownRevision, transient: transients.last)
  }

  package func transientEvents(
    after cursor: UInt64, matching filter: EventFilter
  ) -> ([Event], UInt64) {
    transients.events(after: cursor, matching: filter)
  }
}

/// What a listener has heard already.
package struct EventCursor: Sendable {
  /// Of the ring.
  package var revision: UInt64
  /// How many of those that are not kept.
  package var transient: UInt64
}
