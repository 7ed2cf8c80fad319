internal import PloopIO

extension Device {
  /// Everything that was replied to before this call is on stable storage when it returns.
  package func flush() throws(DeviceError) {
    guard let writing else { return }
    let start = monotonicNanoseconds()
    do {
      let pass = try admitted()
      defer { gate.leave(pass) }
      try writing.index.flush()
    } catch {
      counters.count(.flush, bytes: 0, since: start, failed: true)
      throw error
    }
    counters.count(.flush, bytes: 0, since: start)
    // Outside the gate, where this request would keep itself from being waited for.
    writing.allocator.reap()
  }

  /// The second half of a durable write: what was written before is on stable storage when it
  /// returns. It counts as a part of that write, not as a flush.
  package func commit() throws(DeviceError) {
    guard let writing else { return }
    let start = monotonicNanoseconds()
    // Outside the gate, as every durable request waits for its round (docs/locking.md).
    do throws(DeviceError) { try writing.index.flush() } catch {
      counters.count(.write, bytes: 0, since: start, failed: true)
      throw error
    }
  }

  /// For a timer: a guest that never flushes loses little. A failure shows in ``failure``.
  package func flushIfDirty() {
    guard let writing, let pass = gate.enterNow() else { return }
    if writing.index.isDirty { try? writing.index.flush() }
    gate.leave(pass)
    writing.allocator.reap()
  }
}
