/// Who does work that its caller need not do itself, such as syncs that do not wait for each other.
package enum Helpers: Sendable {
  /// Threads of an engine. What none of them has begun when its result is wanted, the caller does: work
  /// never waits for a thread that waits for it.
  case engine(IOEngine)
  /// Nobody: it is done when it is handed out or, if that `isLate`, when its result is wanted. These are
  /// the two ends of what threads can do to an order, for whoever has to see the same one each time.
  case nobody(isLate: @Sendable () -> Bool)

  /// Hands work out. Whoever does so waits for its result, whatever happens meanwhile.
  package func begin<Value: Sendable, Failure: Error>(
    _ body: @escaping @Sendable () throws(Failure) -> Value
  ) -> SideWork<Value, Failure> {
    let work = SideWork(body)
    switch self {
    case .engine(let engine): engine.submit { work.run() }
    case .nobody(let isLate): if !isLate() { work.run() }
    }
    return work
  }
}

/// Work that somebody else may be doing.
package final class SideWork<Value: Sendable, Failure: Error>: Sendable {
  private enum State {
    case waiting(@Sendable () throws(Failure) -> Value)
    case running
    case ended(Result<Value, Failure>)
  }

  private let state: Monitor<State>

  fileprivate init(_ body: @escaping @Sendable () throws(Failure) -> Value) {
    state = Monitor(.waiting(body))
  }

  /// Does it, if nobody has begun to.
  fileprivate func run() {
    let body = state.withLock { state -> (@Sendable () throws(Failure) -> Value)? in
      guard case .waiting(let body) = state else { return nil }
      state = .running
      return body
    }
    guard let body else { return }
    let result: Result<Value, Failure>
    do throws(Failure) { result = .success(try body()) } catch { result = .failure(error) }
    state.update { $0 = .ended(result) }
  }

  /// Returns when it has ended, however it did.
  package func end() { _ = outcome() }

  /// Waits for it.
  package func result() throws(Failure) -> Value { try outcome().get() }

  private func outcome() -> Result<Value, Failure> {
    run()
    while true {
      let ended: Result<Value, Failure>? = state.wait { state in
        guard case .ended(let result) = state else { return nil }
        return result
      }
      if let ended { return ended }
    }
  }
}

extension SideWork where Value == Void {
  /// Waits for several.
  ///
  /// - Throws: when all have ended, the error of the first in the list that has failed.
  package static func end(_ works: [SideWork]) throws(Failure) {
    for work in works { work.end() }
    for work in works { try work.result() }
  }
}
