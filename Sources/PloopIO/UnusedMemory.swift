internal import CLinux

/// Memory that was freed, and that the C library keeps for what comes next.
package enum UnusedMemory {
  /// Bytes that are free in the allocator's arenas; some of them may not be there any more, but no more are.
  package static var bytes: Int { clinux_unused_memory() }

  /// Gives whole pages of it back to the system. Whoever allocates meanwhile waits for some milliseconds at most.
  package static func giveBack() { clinux_return_memory() }
}
