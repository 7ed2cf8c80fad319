internal import PloopIO

extension Device {
  /// Everything that was replied to before this call is on stable storage when it returns.
  package func flush() throws(DeviceError) {
    guard !isReadOnly else { return }
    let start = monotonicNanoseconds()
    let writing: Writing?
    do throws(DeviceError) {
      let pass = try admitted()
      defer { gate.leave(pass) }
      writing = chain.writing
      try writing?.index.flush()
    } catch {
      counters.count(.flush, bytes: 0, since: start, failed: true)
      throw error
    }
    counters.count(.flush, bytes: 0, since: start)
    // Outside the gate, where this request would keep itself from being waited for.
    writing?.allocator.reap()
  }

  /// The second half of a durable write: what was written before is on stable storage when it
  /// returns. It counts as a part of that write, not as a flush.
  package func commit() throws(DeviceError) {
    // Outside the gate, as every durable request waits for its round (docs/locking.md). If the chain
    // has changed since the write, its change has flushed what was written.
    guard let writing = chain.writing else { return }
    let start = monotonicNanoseconds()
    do throws(DeviceError) { try writing.index.flush() } catch {
      counters.count(.write, bytes: 0, since: start, failed: true)
      throw error
    }
  }

  /// For a timer: a guest that never flushes loses little. A failure shows in ``failure``.
  package func flushIfDirty() {
    guard let pass = gate.enterNow() else { return }
    let writing = chain.writing
    if let writing, writing.index.isDirty { try? writing.index.flush() }
    gate.leave(pass)
    writing?.allocator.reap()
  }
}
