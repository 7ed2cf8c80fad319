/// One operation on an image or its folder, as the system call sees it.
package enum IOOperation: Sendable {
  case read(offset: UInt64, count: Int)
  case write(offset: UInt64, count: Int)
  case sync
  case truncate(size: UInt64)
  case allocate(offset: UInt64, length: UInt64)
  case punchHole(offset: UInt64, length: UInt64)
  case zeroRange(offset: UInt64, length: UInt64)
  /// Blocks of another file, or of other places of this one, become shared.
  case cloneRange(offset: UInt64, length: UInt64)
  case create
  case makeFolder
  case rename(to: String)
  case unlink
  case syncFolder
}

/// What a probe wants a system call to do instead of succeeding.
package enum IOFault: Sendable {
  /// Fails with this error number, without being made.
  case error(Int32)
  /// Transfers only a part.
  case short
  /// Calls the closure first: it may wait for something, as a slow disk would.
  case stall(@Sendable () -> Void)
}

/// Watches every operation on images: records them (``IOTrace``), fails them (``FaultPlan``).
///
/// A file without a probe pays one branch for it.
package protocol IOProbe: AnyObject, Sendable {
  /// Asked before each system call.
  func fault(for operation: IOOperation, path: String) -> IOFault?

  /// Told before a file or a folder is synced; what was written until now, or named, is what it promises.
  func syncStarts(path: String)

  /// Told after a system call has succeeded. `bytes` is what a write wrote, or what blocks held when they became
  /// shared; else empty.
  func succeeded(_ operation: IOOperation, path: String, bytes: UnsafeRawBufferPointer)

  /// What a file is to pass for; whoever replays crashes makes files anew, and has them taken for the
  /// old ones.
  func stamp(_ actual: FileStamp, path: String) -> FileStamp

  /// Whether the host plays a file system on which files can share blocks, whatever it has.
  var sharesBlocks: Bool { get }
}

extension IOProbe {
  package func stamp(_ actual: FileStamp, path: String) -> FileStamp { actual }

  package var sharesBlocks: Bool { false }
}

/// A record of everything that was done to images, in order, for replaying crashes.
package final class IOTrace: IOProbe {
  package enum Event: Sendable {
    case write(path: String, offset: UInt64, bytes: [UInt8])
    case truncate(path: String, size: UInt64)
    case allocate(path: String, offset: UInt64, length: UInt64)
    case zero(path: String, offset: UInt64, length: UInt64)
    case syncStarted(path: String)
    /// Everything recorded on the path before the last `syncStarted` is durable.
    case synced(path: String)
    case create(path: String)
    case makeFolder(path: String)
    case rename(path: String, to: String)
    case unlink(path: String)
    /// Everything that got or lost a name in it before the last `syncStarted` of its path has done so durably.
    case folderSynced(path: String)
    /// Put in by whoever drives the scenario: a reply was sent, a request began.
    case mark(Int)
  }

  private let recorded = Locked<[Event]>([])
  package let sharesBlocks: Bool

  package init(sharesBlocks: Bool = false) { self.sharesBlocks = sharesBlocks }

  package var events: [Event] { recorded.withLock { $0 } }

  package func mark(_ value: Int) { append(.mark(value)) }

  private func append(_ event: Event) { recorded.withLock { $0.append(event) } }

  package func fault(for operation: IOOperation, path: String) -> IOFault? { nil }

  package func syncStarts(path: String) { append(.syncStarted(path: path)) }

  package func succeeded(
    _ operation: IOOperation, path: String, bytes: UnsafeRawBufferPointer
  ) {
    switch operation {
    case .read: break
    case .write(let offset, _), .cloneRange(let offset, _):
      append(.write(path: path, offset: offset, bytes: [UInt8](bytes)))
    case .sync: append(.synced(path: path))
    case .truncate(let size): append(.truncate(path: path, size: size))
    case .allocate(let offset, let length):
      append(.allocate(path: path, offset: offset, length: length))
    case .punchHole(let offset, let length), .zeroRange(let offset, let length):
      append(.zero(path: path, offset: offset, length: length))
    case .create: append(.create(path: path))
    case .makeFolder: append(.makeFolder(path: path))
    case .rename(let to): append(.rename(path: path, to: to))
    case .unlink: append(.unlink(path: path))
    case .syncFolder: append(.folderSynced(path: path))
    }
  }
}

/// Fails chosen system calls: the n-th of all, or every one that a rule picks.
package final class FaultPlan: IOProbe {
  package typealias Rule =
    @Sendable (_ number: Int, _ operation: IOOperation, _ path: String)
    -> IOFault?

  /// In a structure: each time that a function is taken out of a generic type, Swift puts another function
  /// around the one that stays there.
  private struct Rules { var rule: Rule }

  private let rules: Locked<Rules>
  private let calls = Locked<Int>(0)
  private let hits = Locked<Int>(0)
  package let sharesBlocks: Bool

  /// - Parameter rule: asked for each call with its number, counted from 0.
  package init(sharesBlocks: Bool = false, _ rule: @escaping Rule) {
    self.sharesBlocks = sharesBlocks
    rules = Locked(Rules(rule: rule))
  }

  /// Injects `fault` once, at the call with this number.
  package convenience init(at number: Int, _ fault: IOFault) {
    self.init { call, _, _ in call == number ? fault : nil }
  }

  package var callCount: Int { calls.withLock { $0 } }
  package var faultCount: Int { hits.withLock { $0 } }

  package func replace(_ rule: @escaping Rule) { rules.withLock { $0.rule = rule } }

  package func fault(for operation: IOOperation, path: String) -> IOFault? {
    let number = calls.withLock { calls -> Int in
      calls += 1
      return calls - 1
    }
    let rule = rules.withLock { $0.rule }
    guard let fault = rule(number, operation, path) else { return nil }
    hits.withLock { $0 += 1 }
    return fault
  }

  package func syncStarts(path: String) {}

  package func succeeded(
    _ operation: IOOperation, path: String, bytes: UnsafeRawBufferPointer
  ) {}
}
