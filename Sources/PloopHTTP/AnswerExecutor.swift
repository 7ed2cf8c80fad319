internal import PloopIO

/// A thread on which requests are answered.
///
/// Swift's shared pool has as many threads as cores: blocking calls of others there would silence
/// the service.
final class AnswerExecutor: TaskExecutor {
  private struct State {
    var jobs: [UnownedJob] = []
    var isStopped = false
  }

  private let state = Monitor(State())

  init() throws(IOError) {
    try Thread(name: "http-answers", stackBytes: 4 << 20) { [state, weak self] in
      while let jobs = AnswerExecutor.take(state) {
        for job in jobs {
          // Every task keeps its executor.
          guard let self else { return }
          job.runSynchronously(on: self.asUnownedTaskExecutor())
        }
      }
    }.detach()
  }

  deinit { state.update { $0.isStopped = true } }

  /// - Returns: nil at the end.
  private static func take(_ state: Monitor<State>) -> [UnownedJob]? {
    let jobs = state.wait { state -> [UnownedJob]? in
      defer { state.jobs = [] }
      return state.jobs.isEmpty && !state.isStopped ? nil : state.jobs
    }
    return jobs?.isEmpty == false ? jobs : nil
  }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    state.update { $0.jobs.append(job) }
  }
}
