// Debug builds only: a release build has nothing of it, not even what a lock's class is.
#if DEBUG
  internal import Glibc

  /// Where a lock was made, which is its class: all locks made there are one for ``LockOrder``.
  package struct LockClass: Hashable, Sendable, CustomStringConvertible {
    private let file: StaticString
    private let line: UInt

    package init(fileID: StaticString = #fileID, line: UInt = #line) {
      file = fileID
      self.line = line
    }

    package var description: String { "\(file):\(line)" }

    package static func == (left: LockClass, right: LockClass) -> Bool {
      left.line == right.line && left.file.description == right.file.description
    }

    package func hash(into hasher: inout Hasher) {
      hasher.combine(line)
      hasher.combine(file.description)
    }
  }

  /// Which classes of locks are taken while which others are held. It may never go round in a circle: two threads
  /// that take two locks in opposite orders may come to wait for each other, and for ever (docs/locking.md).
  package final class LockOrder: Sendable {
    package struct Nesting: Hashable, Sendable {
      package let held: LockClass
      package let taken: LockClass

      package init(held: LockClass, taken: LockClass) {
        self.held = held
        self.taken = taken
      }
    }

    private struct State {
      var taken: [LockClass: Set<LockClass>] = [:]
    }

    /// Not a `Locked`, which would come here again.
    private let mutex: PlainMutex<State>

    package init() { mutex = PlainMutex(State()) }

    /// Notes that one lock is taken while others are held.
    ///
    /// - Returns: what is wrong with that, in words; nil when nothing is.
    package func note(_ taken: LockClass, holding held: [LockClass]) -> String? {
      mutex.withLock { state in
        for lock in held {
          if lock == taken { return "\(taken) is taken while another of its class is held" }
          if let way = LockOrder.way(from: taken, to: lock, in: state.taken) {
            let circle = ([lock] + way).map(\.description).joined(separator: " -> ")
            return "\(taken) is taken while \(lock) is held, which closes a circle: \(circle)"
          }
          state.taken[lock, default: []].insert(taken)
        }
        return nil
      }
    }

    /// Everything that was seen and was right.
    package var nestings: Set<Nesting> {
      mutex.withLock { state in
        Set(state.taken.flatMap { held, all in all.map { Nesting(held: held, taken: $0) } })
      }
    }

    /// The classes by which one comes from the first to the last, both of them included.
    private static func way(
      from first: LockClass, to last: LockClass, in taken: [LockClass: Set<LockClass>]
    ) -> [LockClass]? {
      var ways = [[first]]
      var seen: Set<LockClass> = [first]
      while let way = ways.popLast(), let end = way.last {
        if end == last { return way }
        for next in taken[end] ?? [] where seen.insert(next).inserted { ways.append(way + [next]) }
      }
      return nil
    }
  }

  extension LockOrder {
    /// Of this process.
    package static let process = LockOrder()

    /// Told before a lock is waited for. What it says of the order ends the process: no test may go on with it.
    static func take(_ lock: LockClass) {
      let thread = HeldLocks.ofThread
      defer { thread.held.append(lock) }
      for held in thread.held
      where thread.known.insert(Nesting(held: held, taken: lock)).inserted {
        if let problem = process.note(lock, holding: [held]) { preconditionFailure(problem) }
        NestingLog.process.append(held: held, taken: lock)
      }
    }

    /// Told after it was given back; locks need not be given back in the order in which they were taken.
    static func giveBack(_ lock: LockClass) {
      let thread = HeldLocks.ofThread
      if let last = thread.held.lastIndex(of: lock) { thread.held.remove(at: last) }
    }
  }

  /// What one thread holds.
  private final class HeldLocks {
    var held: [LockClass] = []
    /// What it has done already, which need not be noted again.
    var known: Set<LockOrder.Nesting> = []

    private static let key: pthread_key_t = {
      var key = pthread_key_t()
      let code = pthread_key_create(&key) { object in
        guard let object else { return }
        Unmanaged<HeldLocks>.fromOpaque(object).release()
      }
      precondition(code == 0, "no key for what threads hold")
      return key
    }()

    static var ofThread: HeldLocks {
      if let object = pthread_getspecific(key) {
        return Unmanaged<HeldLocks>.fromOpaque(object).takeUnretainedValue()
      }
      let made = HeldLocks()
      pthread_setspecific(key, Unmanaged.passRetained(made).toOpaque())
      return made
    }
  }

  /// Where PLOOPD_LOCK_NESTINGS names a file, it gets a line for each nesting that a process is the first time in:
  /// `scripts/check-lock-order` holds them against docs/locking.md.
  private struct NestingLog {
    static let process = NestingLog()

    private let descriptor: Int32

    private init() {
      descriptor =
        getenv("PLOOPD_LOCK_NESTINGS").map { open($0, O_WRONLY | O_APPEND | O_CLOEXEC) } ?? -1
    }

    /// One call of the system for one line, which so stays whole whoever else is writing.
    func append(held: LockClass, taken: LockClass) {
      guard descriptor >= 0 else { return }
      let line = Array("\(held) \(taken)\n".utf8)
      _ = line.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
    }
  }

  /// A value behind a mutex that nobody orders.
  private final class PlainMutex<Value>: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private var value: Value

    init(_ value: Value) {
      self.value = value
      mutex = .allocate(capacity: 1)
      mutex.initialize(to: pthread_mutex_t())
      pthread_mutex_init(mutex, nil)
    }

    deinit {
      pthread_mutex_destroy(mutex)
      mutex.deallocate()
    }

    func withLock<Result>(_ body: (inout Value) -> Result) -> Result {
      pthread_mutex_lock(mutex)
      defer { pthread_mutex_unlock(mutex) }
      return body(&value)
    }
  }
#endif
