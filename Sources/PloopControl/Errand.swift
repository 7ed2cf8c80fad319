internal import PloopDevice
internal import PloopIO

/// Something that is done with many devices at once when the service ends, on threads of its own: those of the engine
/// may all wait for one disk. Devices stand in line with those of their file system, so that one that does not answer
/// keeps nobody waiting who does not lie on it.
struct Errand {
  /// For each file system.
  private static let threadLimit = 16

  private struct State {
    var lines: [UInt64: ArraySlice<DeviceController>]
    /// How many devices it has not been done with.
    var left: Int
    var failed = 0
  }

  private let state: Monitor<State>
  private var threads: [Thread] = []

  /// Begins it.
  ///
  /// - Parameters:
  ///   - engine: lends threads where the system has no room for others.
  ///   - body: called on any thread; answers whether it could be done.
  init(
    with controllers: [DeviceController], on engine: IOEngine,
    _ body: @escaping @Sendable (DeviceController) -> Bool
  ) {
    let lines = Dictionary(grouping: controllers, by: Errand.line).mapValues { $0[...] }
    let state = Monitor(State(lines: lines, left: controllers.count))
    self.state = state
    for (line, controllers) in lines {
      for _ in 0..<min(controllers.count, Errand.threadLimit) {
        let work: @Sendable () -> Void = { Errand.work(off: line, of: state, body) }
        do throws(IOError) {
          threads.append(try Thread(name: "errand", work))
        } catch {
          engine.submit(work)
        }
      }
    }
  }

  /// - Returns: whether it has been done with all of them in time.
  func wait(until deadline: Deadline) -> Bool {
    let isDone = state.wait(until: deadline) { $0.left == 0 ? $0.failed == 0 : nil }
    // What they hold is let go of with them: the state is closed behind this, and not beside it.
    threads.forEach { isDone == nil ? $0.detach() : $0.join() }
    return isDone ?? false
  }

  private static func line(_ controller: DeviceController) -> UInt64 {
    controller.attachedDevice?.filesystem ?? 0
  }

  private static func work(
    off line: UInt64, of state: Monitor<State>, _ body: (DeviceController) -> Bool
  ) {
    while let controller = state.withLock({ $0.lines[line]?.popFirst() }) {
      let isDone = body(controller)
      state.update { state in
        state.left -= 1
        if !isDone { state.failed += 1 }
      }
    }
  }
}
