/// An executor with a thread of its own, for actors that make blocking calls and for tasks that must
/// not wait for them.
///
/// Swift's shared pool has as many threads as cores; two blocking calls on it would freeze every
/// actor and every task of the process.
package final class ThreadExecutor: SerialExecutor, TaskExecutor {
  private struct State {
    var jobs: [UnownedJob] = []
    var stopping = false
  }

  private let state = Monitor(State())

  package init(name: String) throws(IOError) {
    // Blocking work may recurse through chains of deltas and JSON: a full-sized stack.
    try Thread(name: name, stackBytes: 4 << 20) { [state, weak self] in
      while true {
        let job: UnownedJob?? = state.wait { state -> UnownedJob?? in
          if !state.jobs.isEmpty { return .some(state.jobs.removeFirst()) }
          return state.stopping ? .some(nil) : nil
        }
        guard let job = job ?? nil, let self else { return }
        job.runSynchronously(
          isolatedTo: self.asUnownedSerialExecutor(), taskExecutor: self.asUnownedTaskExecutor())
      }
    }.detach()
  }

  package func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    state.update { $0.jobs.append(job) }
  }

  package func asUnownedSerialExecutor() -> UnownedSerialExecutor {
    UnownedSerialExecutor(ordinary: self)
  }

  deinit { stop() }

  /// Ends the thread once every job that was enqueued has run.
  package func stop() { state.update { $0.stopping = true } }
}
