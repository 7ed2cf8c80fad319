internal import CLinux
internal import Glibc

/// The locks of OpenVZ's tools that disks of this process hold: flock on `DiskDescriptor.xml.lck`,
/// where a descriptor exists.
///
/// Disks that have one of these objects in common share a lock, since one descriptor may serve
/// several of them: the top, written, and snapshots beneath it, read. Among themselves they are kept
/// apart by other means (``ImageLock``); any other process sees the strongest of what they asked for.
package final class DescriptorLocks: Sendable {
  private let held = Locked<[FileIdentity: Held]>([:])

  /// Only looked at while the table is locked.
  private final class Held {
    let descriptor: OwnedDescriptor
    var isExclusive: Bool
    /// It could not be had again once, since another process was quicker: asked for anew with the
    /// next disk.
    var isLost = false
    var holders = 1

    init(_ descriptor: consuming OwnedDescriptor, exclusive: Bool) {
      self.descriptor = descriptor
      isExclusive = exclusive
    }
  }

  package init() {}

  /// - Parameters:
  ///   - name: of the descriptor in its folder.
  ///   - exclusive: for a disk that will be written; readers share the lock.
  /// - Returns: nil when the folder has no such descriptor, and so nothing to lock.
  package func acquire(
    _ name: String = DescriptorLock.descriptorName, in folder: ImageFolder, exclusive: Bool
  ) throws(LockError) -> DescriptorLock? {
    guard folder.contains(name) else { return nil }
    let file = "\(name).lck"
    let path = "\(folder.path)/\(file)"
    let number = folder.withDescriptor {
      clinux_open_beneath($0, file, UInt64(O_RDWR | O_CREAT), 0o600)
    }
    guard number >= 0 else { throw .failed(.last("open", path)) }
    let descriptor = OwnedDescriptor(number)
    var status = stat()
    guard fstat(number, &status) == 0 else { throw .failed(.last("fstat", path)) }
    let identity = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    // The table is locked meanwhile, so that nobody finds a lock that is being given back.
    var unused: OwnedDescriptor? = descriptor
    try held.withLock { table throws(LockError) in
      if let held = table[identity] {
        if held.isLost {
          try DescriptorLocks.lock(held.descriptor.number, exclusive ? LOCK_EX : LOCK_SH, path)
          held.isLost = false
          held.isExclusive = exclusive
        } else if exclusive {
          try DescriptorLocks.makeExclusive(held, path)
        }
        held.holders += 1
        return
      }
      try DescriptorLocks.lock(number, exclusive ? LOCK_EX : LOCK_SH, path)
      guard let descriptor = unused.take() else { return }
      table[identity] = Held(descriptor, exclusive: exclusive)
    }
    return DescriptorLock(self, identity)
  }

  private static func lock(_ number: Int32, _ kind: Int32, _ path: String) throws(LockError) {
    guard flock(number, kind | LOCK_NB) == 0 else {
      guard errno == EWOULDBLOCK else { throw .failed(.last("flock", path)) }
      throw .held(path: path)
    }
  }

  /// A shared lock is given up before the exclusive one is asked for (man 2 flock), so it is taken
  /// again when that fails: another reader was in the way, and shares it.
  private static func makeExclusive(_ held: Held, _ path: String) throws(LockError) {
    guard !held.isExclusive else { return }
    do throws(LockError) {
      try lock(held.descriptor.number, LOCK_EX, path)
    } catch {
      held.isLost = flock(held.descriptor.number, LOCK_SH | LOCK_NB) != 0
      throw error
    }
    held.isExclusive = true
  }

  fileprivate func release(_ identity: FileIdentity) {
    held.withLock { table in
      guard let held = table[identity] else { return }
      held.holders -= 1
      guard held.holders == 0 else { return }
      // Closing would not do: a child between fork and exec shares the lock.
      _ = flock(held.descriptor.number, LOCK_UN)
      table[identity] = nil
    }
  }
}

/// A disk's share in a lock of OpenVZ's tools; it ends with this object.
package final class DescriptorLock: Sendable {
  package static let descriptorName = "DiskDescriptor.xml"
  private let locks: DescriptorLocks
  private let identity: FileIdentity

  fileprivate init(_ locks: DescriptorLocks, _ identity: FileIdentity) {
    self.locks = locks
    self.identity = identity
  }

  deinit { locks.release(identity) }

  /// A lock that is shared with no other disk of this process.
  package static func acquire(
    in folder: ImageFolder, exclusive: Bool
  ) throws(LockError) -> DescriptorLock? {
    try DescriptorLocks().acquire(in: folder, exclusive: exclusive)
  }
}
