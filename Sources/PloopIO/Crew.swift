/// Several threads that work off a list. The caller's is one of them, so that it ends in any case.
package enum Crew {
  private struct State<Piece, Failure: Error> {
    var rest: ArraySlice<Piece>
    var active = 0
    var failure: Failure?
  }

  /// Does all of the pieces, some of them at a time, begun in their order.
  ///
  /// - Parameters:
  ///   - width: how many at a time, at most.
  ///   - engine: lends the other threads.
  ///   - body: called on any of the threads.
  /// - Throws: the first failure, once nobody works any more; what was not begun is left undone.
  package static func work<Piece: Sendable, Failure: Error>(
    off pieces: [Piece], width: Int, on engine: IOEngine,
    _ body: @escaping @Sendable (Piece) throws(Failure) -> Void
  ) throws(Failure) {
    let crew = Monitor(State<Piece, Failure>(rest: pieces[...]))
    // Who has much to do has its helpers wait for a turn, and nobody else for all of it.
    let party = engine.newParty()
    for _ in 1..<max(1, min(width, pieces.count)) {
      engine.submit(for: party) { join(crew, body) }
    }
    join(crew, body)
    let failure = crew.wait { $0.active == 0 ? .some($0.failure) : nil } ?? nil
    if let failure { throw failure }
  }

  private static func join<Piece: Sendable, Failure: Error>(
    _ crew: Monitor<State<Piece, Failure>>, _ body: (Piece) throws(Failure) -> Void
  ) {
    let joins = crew.withLock { crew in
      guard !crew.rest.isEmpty, crew.failure == nil else { return false }
      crew.active += 1
      return true
    }
    guard joins else { return }
    while let piece = crew.withLock({ $0.failure == nil ? $0.rest.popFirst() : nil }) {
      do throws(Failure) {
        try body(piece)
      } catch {
        crew.withLock { $0.failure = $0.failure ?? error }
      }
    }
    crew.update { $0.active -= 1 }
  }
}
