internal import PloopIO

/// Something that is asked of another thread, and that its asker may stop waiting for.
final class Question<Answer: Sendable>: Sendable {
  private enum State {
    case asked(CheckedContinuation<Answer, Never>?)
    case answered(Answer)
    case over
  }

  private let state = Locked(State.asked(nil))
  private let withoutAnswer: Answer

  /// - Parameter withoutAnswer: what the asker gets whose task is cancelled.
  init(withoutAnswer: Answer) { self.withoutAnswer = withoutAnswer }

  /// Whether anybody waits for an answer.
  var isOpen: Bool { state.withLock { if case .asked = $0 { true } else { false } } }

  /// The first answer counts.
  func close(with answer: Answer) {
    let asker: CheckedContinuation<Answer, Never>? = state.withLock { state in
      guard case .asked(let asker) = state else { return nil }
      state = asker == nil ? .answered(answer) : .over
      return asker
    }
    asker?.resume(returning: answer)
  }

  /// Waits for the answer; once.
  ///
  /// - Parameter ask: has somebody ``close(with:)`` the question.
  func answer(asking ask: () -> Void) async -> Answer {
    ask()
    return await withTaskCancellationHandler {
      await withCheckedContinuation { asker in
        let known: Answer? = state.withLock { state in
          guard case .answered(let answer) = state else {
            state = .asked(asker)
            return nil
          }
          state = .over
          return answer
        }
        if let known { asker.resume(returning: known) }
      }
    } onCancel: {
      close(with: withoutAnswer)
    }
  }
}
